"""The replicas of a simulated fleet over their lives: starting, serving, draining, gone; and what they cost."""

from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.replica import Replica
from skep.policy.placement import ReplicaLoad
from skep.policy.restart import History


class Member:
    """One replica, from the moment it is paid for to the moment it is gone."""

    __slots__ = ("at", "gone_s", "history", "is_draining", "load", "ready_since_s", "replica", "since_s")

    def __init__(self, at: int, model: WorkerModel, now_s: float, *, is_ready: bool) -> None:
        self.at = at
        self.replica = Replica(f"replica-{at}", model)
        self.replica.now_s, self.replica.up = now_s, is_ready
        self.history = History()
        self.ready_since_s = self.since_s = now_s
        self.gone_s: float | None = None
        self.is_draining = False
        self.load = self.read_load()

    @property
    def is_serving(self) -> bool:
        """True when it takes new work."""
        return self.replica.up and not self.is_draining

    def read_load(self) -> ReplicaLoad:
        """Read the load anew."""
        replica = self.replica
        self.load = ReplicaLoad(
            replica_id=replica.replica_id,
            node_id=replica.replica_id,
            slots_total=replica.model.slots,
            busy=replica.busy,
        )
        return self.load


class Members:
    """Every replica that there is or was, by number."""

    def __init__(self, count: int, model: WorkerModel) -> None:
        self._model = model
        self._all: list[Member] = []
        self._at: dict[str, Member] = {}
        self._serving: list[Member] = []
        for _ in range(count):
            self._add(0.0, is_ready=True)
        self.most = self._there = count
        self.changed()

    def __getitem__(self, at: int) -> Member:
        return self._all[at]

    def by_id(self, replica_id: str) -> Member:
        """Return a replica by its id."""
        return self._at[replica_id]

    def join(self, now_s: float, *, is_ready: bool) -> Member:
        """Add a replica; one that is not ready is paid for while it starts."""
        member = self._add(now_s, is_ready=is_ready)
        self._there += 1
        self.most = max(self.most, self._there)
        self.changed()
        return member

    def _add(self, now_s: float, *, is_ready: bool) -> Member:
        member = Member(len(self._all), self._model, now_s, is_ready=is_ready)
        self._all.append(member)
        self._at[member.replica.replica_id] = member
        return member

    def changed(self) -> None:
        """Take up that a replica began or ceased to serve."""
        self._serving = [member for member in self._all if member.is_serving]

    def leave(self, member: Member, now_s: float) -> None:
        """Let a replica go for good."""
        member.gone_s, member.replica.up = now_s, False
        member.replica.version += 1
        self._there -= 1
        self.changed()

    def loads(self) -> list[ReplicaLoad]:
        """Return the loads of those that take new work."""
        return [member.load for member in self._serving]

    def staying(self) -> list[Member]:
        """Return those that are there and not on their way out, also while they start."""
        return [member for member in self._all if member.gone_s is None and not member.is_draining]

    def leaving_first(self, count: int) -> list[Member]:
        """Return those to drain: what is not up first, then the least busy, of those the youngest."""
        order = sorted(self.staying(), key=lambda one: (one.replica.up, one.replica.busy, -one.at))
        return order[: max(count, 0)]

    def paid_s(self, now_s: float) -> float:
        """Return the seconds of all replicas together."""
        return sum((now_s if one.gone_s is None else one.gone_s) - one.since_s for one in self._all)

    def busy_slot_s(self) -> float:
        """Return the seconds of all slots that were at work."""
        return sum(one.replica.busy_slot_s for one in self._all)
