"""The files of one replica: its handoff, for the machine, and its spawn record, for a successor of this hive."""

import structlog

from skep.errors.hive import HandoffFailed
from skep.hive.handoff import SpawnRecord
from skep.hive.launching import Running
from skep.hive.node import Node
from skep.hive.plan import Plan
from skep.hive.steps import Step, reached
from skep.process.identity import boot_id
from skep.wire.handoff import VERSION, Handoff, HandoffModel

log = structlog.get_logger(__name__)


class Papers:
    """Writes and removes them. What a full disk prevents is logged, counted, and due again."""

    def __init__(self, plan: Plan, replica_id: str, node: Node) -> None:
        self._plan, self._replica_id, self._node = plan, replica_id, node
        self._ids = {"pool_id": plan.spec.id, "replica_id": replica_id}
        self.is_due = False

    def publish(self, running: Running) -> None:
        """Write the handoff file if it is due."""
        if not self.is_due:
            return
        try:
            self._node.handoffs.write(self._handoff(running))
        except HandoffFailed as error:
            self._count("failed")
            log.warning("handoff_failed", error=str(error), **self._ids)
            return
        self.is_due = False
        self._count("written")
        reached(Step.HANDOFF_WRITTEN, **self._ids)

    def withdraw(self) -> None:
        """Remove the handoff file: it must not outlive what it tells."""
        self.is_due = False
        try:
            if not self._node.handoffs.remove(self._plan.spec.id, self._replica_id):
                return
        except HandoffFailed as error:
            self._count("failed")
            log.warning("handoff_failed", error=str(error), **self._ids)
            return
        self._count("removed")
        reached(Step.HANDOFF_REMOVED, **self._ids)

    def mark_draining(self, running: Running, *, until_s: float) -> None:
        """Say in the spawn record that its jobs have until then, so that a successor lets them end."""
        process, endpoint = running.process, running.endpoint
        try:
            self._node.spawns.write(
                SpawnRecord(
                    pool_id=self._plan.spec.id,
                    replica_id=self._replica_id,
                    nonce=endpoint.nonce,
                    pid=process.pid,
                    pid_started_at=process.started_at,
                    boot_id=boot_id(),
                    engine=self._plan.engine.id,
                    url=endpoint.url,
                    token=endpoint.token,
                    drain_until_s=until_s,
                )
            )
        except HandoffFailed as error:
            log.warning("drain_unrecorded", error=str(error), **self._ids)

    def forget_spawn(self) -> None:
        """Remove the spawn record: the process is gone."""
        try:
            self._node.spawns.remove(self._plan.spec.id, self._replica_id)
        except HandoffFailed as error:
            log.warning("spawn_record_stays", error=str(error), **self._ids)
        reached(Step.SPAWN_FORGOTTEN, **self._ids)

    def _count(self, outcome: str) -> None:
        self._node.metrics.count(self._node.metrics.handoffs, outcome)

    def _handoff(self, running: Running) -> Handoff:
        plan, endpoint, process = self._plan, running.endpoint, running.process
        return Handoff(
            version=VERSION,
            pool_id=plan.spec.id,
            replica_id=self._replica_id,
            engine=plan.engine.id,
            engine_version=plan.engine_version,
            url=endpoint.url,
            pid=process.pid,
            pid_started_at=process.started_at,
            nonce=endpoint.nonce,
            device_mask=plan.mask.ids,
            slots_total=plan.spec.slots,
            model=HandoffModel(
                name=plan.model_name, ref=plan.model_ref, path=plan.model_path, sha256=plan.model_sha256
            ),
            written_at=self._node.wall(),
            boot_id=boot_id(),
            token=endpoint.token,
            node_id=self._node.settings.node_id,
            context=plan.spec.context,
            spec_digest=plan.digest,
        )
