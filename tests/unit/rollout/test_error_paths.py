"""The coverage of error paths: each failure that rollout can tell is held by a test, and each group has its scenarios."""

from pathlib import Path

import pytest

from skep.errors import SkepError
from skep.errors import rollout as room

TESTS = Path(__file__).parents[2]
ABSTRACT = {"RolloutFailed"}
FAILURES = [
    kind
    for name, kind in vars(room).items()
    if isinstance(kind, type)
    and issubclass(kind, SkepError)
    and kind.__module__ == room.__name__
    and name not in ABSTRACT
]


def held() -> str:
    """Return the text of every test of rollout but this one."""
    files = [
        *TESTS.glob("integration/test_rollout_*.py"),
        *TESTS.glob("unit/rollout/*.*"),
        *TESTS.glob("features/rollout*"),
    ]
    return "\n".join(path.read_text() for path in files if path.is_file() and path != Path(__file__))


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.code)
def test_a_failure_that_can_be_told_is_held_by_a_test(kind: type[SkepError]) -> None:
    text = held()
    assert kind.__name__ in text or f'"{kind.code}"' in text


def test_there_are_failures_to_look_for() -> None:
    assert len(FAILURES) >= 13
