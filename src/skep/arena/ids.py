"""Names that follow from what is run, so that the same run has the same names: no clock, no randomness."""

import hashlib
import re
from typing import Final

ID_HEX: Final = 8
NAME_CHARACTERS_MAX: Final = 63
"""A Kubernetes object that becomes a label value or a DNS label may be no longer."""


def deterministic_id(
    trace_sha256: str, namespace: str, deployment: str, target: int, seed: int, step: int
) -> str:
    """Return 8 hex digits that depend on every argument and on nothing else."""
    parts = (trace_sha256, namespace, deployment, str(target), str(seed), str(step))
    framed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hashlib.sha256(framed).hexdigest()[:ID_HEX]


def simulation_name(deployment: str, identity: str) -> str:
    """Return `sim-<name>-<id>`, a valid Kubernetes name of at most 63 characters."""
    room = NAME_CHARACTERS_MAX - len("sim--") - len(identity)
    name = re.sub(r"[^a-z0-9-]+", "-", deployment.lower())[:room].strip("-") or "workload"
    return f"sim-{name}-{identity}"
