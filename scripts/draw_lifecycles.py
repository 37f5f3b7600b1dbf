"""Write docs/lifecycle.md from the tables of `skep.lifecycle`; a test holds the page against the code."""

from pathlib import Path

from skep.lifecycle.job import JOB
from skep.lifecycle.node import NODE
from skep.lifecycle.pool import POOL
from skep.lifecycle.replica import REPLICA

PAGE = Path(__file__).parent.parent / "docs" / "lifecycle.md"
INTRODUCTION = """# Life cycles

Four things in skep live through states: a replica (one worker process), a pool, a node and a job. Each has one table in
`src/skep/lifecycle/`; whatever is not in the table is refused with `illegal_transition`. The diagrams below are drawn from
those tables by `scripts/draw_lifecycles.py`, and a test fails when they differ.
"""
NOTES = {
    REPLICA: (
        "A replica is ready when its process has proved that it is ours (its nonce, or its socket) *and* has produced a "
        "token. `suspect` still serves: one probe was missed, and three in a row are a crash. `held` waits for the "
        "circuit breaker's trial. A replica that was stopped does not come back: its successor has a new id."
    ),
    POOL: (
        "A pool follows from its replicas and from what its operator asked for. `unready` always has a cause "
        "(`skep pool status`), and is tried again with backoff. `idle` was unloaded after its `ttl_s`, and loads on demand."
    ),
    NODE: "How the queen judges a machine. Only `alive` gets new work, and no state of a node kills anything.",
    JOB: (
        "One request. Its four ends are each exactly one terminal event on the wire: a cut stream can never be taken "
        "for a finished one."
    ),
}


def page() -> str:
    parts = [INTRODUCTION]
    for table, note in NOTES.items():
        parts.append(f"## {table.name}\n\n{note}\n\n```mermaid\n{table.diagram()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
