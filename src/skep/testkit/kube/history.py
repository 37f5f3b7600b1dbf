"""The changes of a fake cluster: one counter of resource versions, and a bounded past that watches resume from."""

from typing import Any, Final, NamedTuple

from skep.testkit.kube.paging import sort_key
from skep.testkit.kube.resources import Resource
from skep.testkit.kube.status import expired

HISTORY_MAX: Final = 5000
"""Changes that a watch can resume from; older ones are compacted away (410)."""
KubeObject = dict[str, Any]


class Change(NamedTuple):
    """One change: `before` is None for a creation, `after` None for a deletion."""

    version: int
    resource: Resource
    before: KubeObject | None
    after: KubeObject | None


class History:
    """What changed, newest last. Not locked: its store is."""

    def __init__(self, changes_max: int = HISTORY_MAX) -> None:
        self._changes: list[Change] = []
        self._changes_max = changes_max
        self.version = 1
        self.compacted = 0
        """The newest version that is forgotten."""

    def advance(self) -> int:
        """Count one version on; the change that it is of is remembered next."""
        self.version += 1
        return self.version

    def remember(self, resource: Resource, before: KubeObject | None, after: KubeObject | None) -> None:
        """Keep what the newest version changed."""
        self._changes.append(Change(self.version, resource, before, after))
        if len(self._changes) > self._changes_max:
            dropped = self._changes[: -self._changes_max]
            del self._changes[: -self._changes_max]
            self.compacted = dropped[-1].version

    def since(self, version: int, resource: Resource) -> list[Change]:
        """Return what changed after a version. Raises: ApiError (410) where the history does not reach back."""
        if version < self.compacted:
            raise expired(f"too old resource version: {version} ({self.compacted})")
        return [one for one in self._changes if one.version > version and one.resource == resource]

    def compact(self) -> None:
        """Forget everything."""
        self._changes.clear()
        self.compacted = self.advance()

    def undone(
        self, state: dict[tuple[str, str], KubeObject], version: int, resource: Resource
    ) -> dict[tuple[str, str], KubeObject]:
        """Return a resource's objects as they were at a version, from those that are now."""
        for change in reversed(self._changes):
            if change.version <= version:
                break
            if change.resource != resource:
                continue
            key = sort_key(change.after or change.before or {})
            if change.before is None:
                state.pop(key, None)
            else:
                state[key] = change.before
        return state
