"""The newest proof bundles of a folder, for the dashboard: what ran, how it ended."""

from pathlib import Path

import msgspec

from skep.proof.records import Counts, Metadata

SHOWN_MAX = 10


class ProofView(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle by its metadata alone."""

    run_id: str
    kind: str
    outcome: str
    started_at: float
    finished_at: float | None
    counts: Counts
    level: str
    folder: str


def newest(root: Path) -> list[ProofView]:
    """Return the newest bundles, newest first; a folder that cannot be read as one is passed over. Blocks on the disk."""
    found = []
    dated = [(path.stat().st_mtime, path) for path in root.glob("*/*/metadata.json")]
    for _, path in sorted(dated, reverse=True)[:SHOWN_MAX]:
        try:
            read = msgspec.json.decode(path.read_bytes(), type=Metadata)
        except (OSError, msgspec.DecodeError):
            continue
        found.append(
            ProofView(
                run_id=read.run_id,
                kind=read.kind.value,
                outcome=read.outcome.value if read.complete else "partial",
                started_at=read.started_at,
                finished_at=read.finished_at,
                counts=read.counts,
                level=read.level,
                folder=str(path.parent),
            )
        )
    return found
