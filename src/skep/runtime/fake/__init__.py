"""A deterministic backend with no native code: scripted latency, tokens, faults and memory figures.

It ships with the product (`skep up --backend fake`) and raises wherever the real library would end the process.
"""

from skep.runtime.fake.backend import FakeBackend, FakeModel
from skep.runtime.fake.script import FakeScript
from skep.runtime.fake.session import FakeSession

__all__ = ["FakeBackend", "FakeModel", "FakeScript", "FakeSession"]
