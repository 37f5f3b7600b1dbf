"""Proving that inference infrastructure works: steps, harness, hosts, faults, conformance, pytest plugin."""

import importlib
from typing import Any

_HARNESS = (
    "SseStream",
    "WorkerHarness",
    "assert_event_order",
    "assert_successful_completion",
    "assert_token_count",
    "collect_sse_events",
    "extract_tokens",
    "make_request",
)
_EXPORTS = dict.fromkeys(_HARNESS, "skep.testkit.harness")
"""Name → module: imported when first asked for, so that one tool does not load all the others."""

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
