"""Events into a proof bundle: what the controlling process writes, whoever ran the scenarios."""

from dataclasses import dataclass, field
from pathlib import Path

from skep.proof import messages
from skep.proof.bundle import Bundle
from skep.proof.messages import Envelope
from skep.proof.records import Status
from skep.testkit.bdd.gherkin import FeatureStream
from skep.testkit.bdd.recording import ScenarioEvent


@dataclass
class Prover:
    """Writes one bundle."""

    bundle: Bundle
    root: Path
    _stream: FeatureStream = field(init=False)
    _definitions: dict[tuple[str, str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stream = FeatureStream(self.root)

    def scenario(self, event: ScenarioEvent) -> None:
        """Record a scenario that ended. Its steps were written by the process that ran it."""
        for record in event.resources:
            self.bundle.resources(record)
        self.bundle.envelopes(self._envelopes(event))
        self.bundle.scenario(event.record)

    def _envelopes(self, event: ScenarioEvent) -> list[Envelope]:
        record = event.record
        found = self._stream.open(record.uri)
        pickle = self._stream.pickle(record.uri, record.line, event.row)
        if pickle is None or len(pickle["steps"]) != len(event.steps):
            return found
        defined = [self._define(each, found) for each in event.definitions]
        case_id, started_id = self._stream.new_id(), self._stream.new_id()
        step_ids = [self._stream.new_id() for _ in event.steps]
        found.append(
            messages.test_case(
                identifier=case_id,
                pickle_id=pickle["id"],
                steps=[
                    messages.test_step(identifier=step_id, pickle_step_id=step["id"], definition_ids=ids)
                    for step_id, step, ids in zip(step_ids, pickle["steps"], defined, strict=True)
                ],
            )
        )
        found.append(
            messages.case_started(
                identifier=started_id, case_id=case_id, at=record.started_at, worker=record.worker
            )
        )
        found += self._steps(event, started_id, step_ids)
        if record.error is not None:
            found.append(
                messages.log_attachment(
                    started_id=started_id, name="error.txt", text=record.error.trace or record.error.message
                )
            )
        found += [
            messages.log_attachment(started_id=started_id, name=name, text=self._tail(name))
            for name in record.logs
            if record.error
        ]
        found.append(
            messages.case_finished(started_id=started_id, at=record.started_at + record.duration_ms / 1000)
        )
        return found

    def _steps(self, event: ScenarioEvent, started_id: str, step_ids: list[str]) -> list[Envelope]:
        found: list[Envelope] = []
        before = event.record.status in {Status.FAILED, Status.SKIPPED} and all(
            step.status is Status.SKIPPED for step in event.steps
        )
        for index, (step, at, step_id) in enumerate(zip(event.steps, event.starts, step_ids, strict=True)):
            status, error = step.status, step.error
            if (
                before and index == 0
            ):  # It failed before its first step, or was skipped: the schema has no other place.
                status, error = event.record.status, event.record.error
            spent_s = step.duration_ms / 1000
            found += [
                messages.step_started(started_id=started_id, step_id=step_id, at=at),
                messages.step_finished(
                    started_id=started_id,
                    step_id=step_id,
                    at=at + spent_s,
                    status=status,
                    duration_s=spent_s,
                    error=error,
                ),
            ]
        return found

    def _define(self, definition: tuple[str, str, int], found: list[Envelope]) -> list[str]:
        pattern, path, line = definition
        if not path:
            return []
        if definition not in self._definitions:
            identifier = self._definitions[definition] = self._stream.new_id()
            found.append(
                messages.step_definition(
                    identifier=identifier, pattern=pattern, is_regular=False, uri=path, line=line
                )
            )
        return [self._definitions[definition]]

    def _tail(self, name: str) -> str:
        path = self.bundle.folder / name
        return path.read_text(encoding="utf-8", errors="replace")[-6000:] if path.is_file() else ""
