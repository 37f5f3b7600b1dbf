"""Seeds: one for the run, and from it one for each scenario, so that any of them can be run again alone."""

import hashlib
import secrets

SEED_BITS = 31


def draw() -> int:
    """Draw a run's seed; it is recorded."""
    return secrets.randbits(SEED_BITS)


def derive(run_seed: int, scenario_id: str) -> int:
    """Return the scenario's seed: the same for the same run seed and scenario, whatever ran before it."""
    digest = hashlib.sha256(f"{run_seed} {scenario_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - SEED_BITS)
