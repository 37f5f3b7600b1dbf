"""Every trace that actions can make of one trace, each simulated once: what look-ahead and the environments run on.

A variant is a node of a graph, an action an edge. The simulation is deterministic, so a variant's outcome is a fact
that may be kept; numbers live in arrays, so that many environments step at once by indexing. Bounded: when
`VARIANTS_MAX` is reached the graph begins anew with what the caller says is in use.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from skep.arena.actions import NOOP, apply_action
from skep.arena.observation import STATE_FIELDS, state_vector
from skep.arena.outlooks import Looking
from skep.arena.policies.base import Outlook
from skep.arena.trace.trace import Trace

VARIANTS_MAX: Final = 200_000
UNKNOWN: Final = -1
FEATURES: Final = (*STATE_FIELDS, "short_cpu", "short_memory", "oom_killed", "ready")
"""What an environment shows: the state vector, and shares (0 to 1) of pods short of CPU, of memory, killed, ready."""
Floats = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


class VariantGraph:
    """The variants of one trace, looked at by `looking`, which says of which workload and for which target."""

    def __init__(
        self, trace: Trace, looking: Looking, *, actions: Sequence[str], variants_max: int = VARIANTS_MAX
    ) -> None:
        self.actions = tuple(actions)
        self._looking, self._variants_max = looking, variants_max
        self.simulations = 0
        self._clear()
        self.root = self.add(trace)

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, trace: Trace) -> int:
        """Return the number of a variant; the same trace has the same number."""
        known = self._numbers.get(trace.events)
        if known is not None:
            return known
        number = len(self._traces)
        self._numbers[trace.events] = number
        self._traces.append(trace)
        self._outlooks.append(None)
        if number == len(self.next):
            self._grow()
        self.next[number] = UNKNOWN
        self.is_simulated[number] = False
        return number

    def trace(self, variant: int) -> Trace:
        """Return a variant's trace."""
        return self._traces[variant]

    def after(self, variant: int, action: int) -> int:
        """Return the variant after an action; a blocked or idle one leads back to itself."""
        found = int(self.next[variant, action])
        if found == UNKNOWN:
            name = self.actions[action]
            looking = self._looking
            changed = apply_action(self._traces[variant], looking.workload, name, looking.safeguards)[0]
            found = self.next[variant, action] = self.add(changed)
        return int(found)

    def outlook(self, variant: int) -> Outlook:
        """Return what a variant's simulation shows; it is simulated on first sight."""
        known = self._outlooks[variant]
        if known is None:
            known = self._looking(self._traces[variant])
            self.learn(variant, known)
        return known

    def learn(self, variant: int, outlook: Outlook) -> None:
        """Keep what a variant's simulation showed."""
        self._outlooks[variant] = outlook
        self.simulations += 1
        self.features[variant] = features_of(outlook, self._looking.target)
        self.rewards[variant] = outlook.reward
        self.is_goal[variant] = outlook.observation.is_goal(self._looking.target)
        self.is_simulated[variant] = True

    def mask(self, variant: int) -> npt.NDArray[np.int8]:
        """Tell which actions would change a variant; noop always may."""
        found: npt.NDArray[np.int8] = self.masks(np.array([variant]))[0]
        return found

    def masks(self, variants: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Tell for each variant which actions would change it; noop always may."""
        unknown = np.unique(variants[(self.next[variants] == UNKNOWN).any(axis=1)])
        for variant in unknown:
            for action in range(len(self.actions)):
                self.after(int(variant), action)
        found: npt.NDArray[np.int8] = (self.next[variants] != variants[:, None]).astype(np.int8)
        found[:, [name == NOOP for name in self.actions]] = 1
        return found

    def follow(
        self, variants: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the variants after actions; what is known already costs an index. None of them is simulated."""
        found = self.next[variants, actions]
        for at in np.flatnonzero(found == UNKNOWN):
            found[at] = self.after(int(variants[at]), int(actions[at]))
        return found

    def unseen(self, variants: npt.NDArray[np.int64]) -> list[int]:
        """Return those of some variants that were not simulated yet, each once."""
        return [int(one) for one in np.unique(variants[~self.is_simulated[variants]])]

    def is_full(self) -> bool:
        """Tell whether the bound is reached, so that `begin_anew` is due."""
        return len(self._traces) >= self._variants_max

    def begin_anew(self, used: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Forget all but the root and the variants in use; return the new numbers of those."""
        root, kept = self._traces[self.root], {int(one): self._traces[one] for one in used}
        self._clear()
        self.root = self.add(root)
        self.outlook(self.root)
        numbers = {old: self.add(trace) for old, trace in kept.items()}
        for number in numbers.values():
            self.outlook(number)
        return np.array([numbers[int(one)] for one in used], dtype=np.int64)

    def _clear(self) -> None:
        self._numbers: dict[tuple[bytes, ...], int] = {}
        self._traces: list[Trace] = []
        self._outlooks: list[Outlook | None] = []
        self.next: npt.NDArray[np.int64] = np.full((64, len(self.actions)), UNKNOWN, dtype=np.int64)
        self.features: Floats = np.zeros((64, len(FEATURES)), dtype=np.float32)
        self.rewards: npt.NDArray[np.float64] = np.zeros(64, dtype=np.float64)
        self.is_goal: npt.NDArray[np.bool_] = np.zeros(64, dtype=bool)
        self.is_simulated: npt.NDArray[np.bool_] = np.zeros(64, dtype=bool)

    def _grow(self) -> None:
        self.next, self.features, self.rewards = (
            _doubled(self.next),
            _doubled(self.features),
            _doubled(self.rewards),
        )
        self.is_goal, self.is_simulated = _doubled(self.is_goal), _doubled(self.is_simulated)


def _doubled(array: npt.NDArray[T]) -> npt.NDArray[T]:
    return np.concatenate([array, np.zeros_like(array)])


def features_of(outlook: Outlook, target: int) -> tuple[float, ...]:
    """Return the numbers of `FEATURES`."""
    seen = outlook.observation
    pods = max(1, seen.total)
    return (
        *state_vector(seen, outlook.resources, target),
        min(1.0, seen.reasons.get("Insufficient cpu", 0) / pods),
        min(1.0, seen.reasons.get("Insufficient memory", 0) / pods),
        min(1.0, seen.oom_killed / pods),
        min(1.0, seen.ready / pods),
    )
