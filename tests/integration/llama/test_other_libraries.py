"""The engine's contract on every llama.cpp library that is here, not only on the one that is preferred.

The wheel is what every other test runs on. A second one is one that this machine has besides (`skep[native]`, an engine
that the hive built), or one that SKEP_TEST_LLAMA_LIBRARY names.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skep.runtime.llama.discovery import LIBRARY_VARIABLE, Candidate, candidates

NAMED = "SKEP_TEST_LLAMA_LIBRARY"
ROOT = Path(__file__).parents[3]
SUITE = (
    "tests/contract/test_backend.py",
    "tests/contract/test_engine.py",
    "tests/contract/test_determinism.py",
)

pytestmark = [pytest.mark.llama, pytest.mark.nested, pytest.mark.timeout(400)]


def others() -> list[Candidate]:
    """Return the libraries that no other test computes with."""
    preferred = candidates()[0].path.resolve()
    named = os.environ.get(NAMED, "")
    found = candidates(environ={**os.environ, LIBRARY_VARIABLE: named} if named else None)
    return [one for one in found if one.path.resolve() != preferred]


def test_the_contract_holds_on_every_other_library() -> None:
    found = others()
    if not found:
        pytest.skip(f"one llama.cpp library here: install skep[native], or set {NAMED} to a libllama.so")
    for one in found:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "llama and not slow", *SUITE],
            cwd=ROOT,
            env={**os.environ, LIBRARY_VARIABLE: str(one.path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{one.provider} {one.path}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
        assert "passed" in done.stdout
