"""How two traces differ, as paths with the value before and after."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from skep.arena.trace.trace import Trace

ABSENT: Final = "(absent)"


class Difference(NamedTuple):
    """One value that is not the same."""

    path: str
    before: Any
    after: Any


def diff_traces(before: Trace, after: Trace) -> Iterator[Difference]:
    """Yield what differs: sections first, then event by event; events of the same bytes are not decoded."""
    keys = sorted({*before.section_keys(), *after.section_keys()})
    for key in keys:
        yield from _diff(key, before.section(key), after.section(key))
    for position, (left, right) in enumerate(zip_longest(before.events, after.events)):
        if left == right:
            continue
        path = f"events[{position}]"
        yield from _diff(
            path,
            ABSENT if left is None else before.event(position),
            ABSENT if right is None else after.event(position),
        )


def _diff(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            name = key if isinstance(key, str) else str(key)
            yield from _diff(f"{path}.{name}", before.get(key, ABSENT), after.get(key, ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for position, (left, right) in enumerate(zip_longest(before, after, fillvalue=ABSENT)):
            yield from _diff(f"{path}[{position}]", left, right)
    else:
        yield Difference(path, before, after)
