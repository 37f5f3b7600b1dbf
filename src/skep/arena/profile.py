"""How fast a simulated cluster's parts are. Delays as SimKube's `lifecycleParams` has them, in seconds here."""

from typing import Any

import msgspec

from skep.arena.scheduler.explain import CELLS_MAX
from skep.arena.scheduler.table import VECTOR_FROM


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Delays of kubelets and scheduler; each is its base plus a seeded draw from 0 to its jitter.

    An image is pulled once per node. `termination_s` is how long a container takes to stop, at most its grace
    period. `cycle_s` is what one scheduling cycle takes.
    """

    image_pull_delay_s: float = 2.0
    image_pull_jitter_s: float = 1.0
    pod_startup_delay_s: float = 0.5
    pod_startup_jitter_s: float = 0.5
    termination_s: float = 1.0
    cycle_s: float = 0.0
    vector_from: int = VECTOR_FROM
    explains: bool = True
    explained_cells_max: int = CELLS_MAX
    records_max: int = 65_536

    @classmethod
    def of_lifecycle_params(cls, params: dict[str, Any]) -> "Profile":
        """Return the profile that SimKube's `lifecycleParams` (milliseconds) describe."""
        names = {
            "imagePullDelay": "image_pull_delay_s",
            "imagePullJitter": "image_pull_jitter_s",
            "podStartupDelay": "pod_startup_delay_s",
            "podStartupJitter": "pod_startup_jitter_s",
        }
        return cls(**{ours: params[theirs] / 1000 for theirs, ours in names.items() if theirs in params})
