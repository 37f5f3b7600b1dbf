"""The bounds that no action crosses, whatever a policy says."""

from collections.abc import Mapping
from typing import Final

import msgspec

from skep.arena.trace.event import Manifest
from skep.arena.workload import containers_of, replicas_field, request_of

GIB: Final = 1 << 30


class Safeguards(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upper bounds: CPU and memory for each container's request, replicas for a workload."""

    cpu_m_max: int = 16_000
    memory_bytes_max: int = 32 * GIB
    replicas_max: int = 100

    def excess(self, manifest: Manifest) -> dict[str, int]:
        """Return by how much a manifest is beyond each bound; an empty mapping where it is within them."""
        values = {
            "replicas": ((manifest.get("spec") or {}).get(replicas_field(manifest), 1) or 0)
            - self.replicas_max
        }
        for container in containers_of(manifest):
            name = container.get("name", "?")
            values[f"cpu of {name}"] = request_of(container, "cpu") - self.cpu_m_max
            values[f"memory of {name}"] = request_of(container, "memory") - self.memory_bytes_max
        return {what: over for what, over in values.items() if over > 0}

    def objection(self, before: Mapping[str, int], after: Mapping[str, int]) -> str | None:
        """Say which bound an edit goes (further) beyond, or None; a step back towards the bounds is always allowed."""
        worse = [what for what, over in after.items() if over > before.get(what, 0)]
        if not worse:
            return None
        bounds = f"{self.cpu_m_max}m CPU, {self.memory_bytes_max} bytes, {self.replicas_max} replicas"
        return f"{', '.join(worse)} would go beyond the safeguards ({bounds})"
