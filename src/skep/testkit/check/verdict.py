"""What a clause can find, and how a clause says so while it looks."""

from enum import StrEnum
from typing import Any, NoReturn

import msgspec

TRACE_CHARS_MAX = 1200


class Verdict(StrEnum):
    """PASS and FAIL are about the rule; the other two say why there is neither."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    UNSUPPORTED = "UNSUPPORTED"
    NOT_OBSERVABLE = "NOT-OBSERVABLE"


class Severity(StrEnum):
    """`must`: clients break without it, and the exit code tells. `should`: reported, and only `--strict` counts it."""

    MUST = "must"
    SHOULD = "should"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one clause. `trace` is the smallest exchange that shows it, for a failure."""

    clause: str
    area: str
    rule: str
    severity: Severity
    source: str
    verdict: Verdict
    detail: str = ""
    trace: str = ""
    duration_ms: float = 0.0


class Outcome(Exception):
    """How a clause ends early: a verdict of its own, never an error of ours."""

    verdict = Verdict.FAIL

    def __init__(self, detail: str, trace: str = "") -> None:
        super().__init__(detail)
        self.detail, self.trace = detail, trace[:TRACE_CHARS_MAX]


class Broken(Outcome):
    """The rule is broken, and this shows it."""


class Unsupported(Outcome):
    """The server says that it does not offer this."""

    verdict = Verdict.UNSUPPORTED


class NotObservable(Outcome):
    """Nothing that the server did here could have shown it."""

    verdict = Verdict.NOT_OBSERVABLE


def require(condition: Any, detail: str, trace: str = "") -> None:
    """Raises: Broken, unless the condition holds."""
    if not condition:
        raise Broken(detail, trace)


def unobservable(detail: str) -> NoReturn:
    """Raises: NotObservable."""
    raise NotObservable(detail)
