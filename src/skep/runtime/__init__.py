"""The inference runtime: backends, the batching engine, the GGUF reader, the tiny model. Knows no HTTP.

What the library offers stands in `__all__` and is imported when it is first asked for (docs/runtime.md).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skep.runtime.backend import LoadOptions, SessionOptions
    from skep.runtime.model import Model, Session, collect
    from skep.runtime.options import EngineOptions
    from skep.runtime.request import Constraint, Failed, Finished, Started, Token
    from skep.runtime.sampling import SamplingParams

_HOMES = {
    "Model": "model",
    "Session": "model",
    "collect": "model",
    "EngineOptions": "options",
    "LoadOptions": "backend",
    "SessionOptions": "backend",
    "SamplingParams": "sampling",
    "Constraint": "request",
    "Started": "request",
    "Token": "request",
    "Finished": "request",
    "Failed": "request",
}

__all__ = [
    "Constraint",
    "EngineOptions",
    "Failed",
    "Finished",
    "LoadOptions",
    "Model",
    "SamplingParams",
    "Session",
    "SessionOptions",
    "Started",
    "Token",
    "collect",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
