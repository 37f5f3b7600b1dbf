"""The list of clauses: each a coroutine that looks, under an id, a rule in one sentence, and where the rule comes from."""

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from skep.errors import InvalidConfig
from skep.testkit.check.verdict import Severity

if TYPE_CHECKING:
    from skep.testkit.check.probe import Probe

Look = Callable[["Probe"], Awaitable[str | None]]
"""Returns what is worth saying of a pass; raises an `Outcome` for anything else."""

OPENAI = "OpenAI API reference"
WHATWG = "WHATWG HTML, 9.2 server-sent events"
HTTP = "RFC 9110"


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. `is_chaos`: it floods or stalls the server, and is left out unless asked for. `needs_process`: `--command`."""

    id: str
    rule: str
    severity: Severity
    source: str
    look: Look
    is_chaos: bool = False
    needs_process: bool = False

    @property
    def area(self) -> str:
        """The part of its id before the dot."""
        return self.id.partition(".")[0]


CLAUSES: dict[str, Clause] = {}
AREAS = (
    "endpoints", "stream", "truncation", "errors", "determinism", "cancel", "backpressure", "limits", "lifecycle",
)  # fmt: skip
"""In the order of a run: what harms nobody first, what ends the server last."""


def clause(
    id: str,  # noqa: A002 - what it is
    rule: str,
    *,
    source: str,
    severity: Severity = Severity.MUST,
    is_chaos: bool = False,
    needs_process: bool = False,
) -> Callable[[Look], Look]:
    """Register the coroutine below as a clause."""

    def add(look: Look) -> Look:
        assert id not in CLAUSES, f"two clauses {id}"
        CLAUSES[id] = Clause(
            id=id,
            rule=rule,
            severity=severity,
            source=source,
            look=look,
            is_chaos=is_chaos,
            needs_process=needs_process,
        )
        return look

    return add


def chosen(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Clause]:
    """Return the clauses whose area or id (`stream`, `stream.one-done`, `*.health*`) is asked for. Raises: InvalidConfig."""
    for pattern in (*only, *skip):
        if not any(_fits(one, pattern) for one in CLAUSES.values()):
            raise InvalidConfig(
                f"no clause {pattern!r}: areas are {', '.join(AREAS)}; `skep check --list` shows all"
            )
    return [
        one
        for one in sorted(CLAUSES.values(), key=lambda one: AREAS.index(one.area))
        if (not only or any(_fits(one, pattern) for pattern in only))
        and not any(_fits(one, pattern) for pattern in skip)
    ]


def _fits(one: Clause, pattern: str) -> bool:
    return pattern in (one.area, one.id) or fnmatchcase(one.id, pattern)
