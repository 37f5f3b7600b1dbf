"""The writer of a proof bundle: `<root>/<kind>/<run_id>/`.

    with Bundle.create(root, kind=Kind.CHECK, command=argv) as bundle:
        bundle.seed("run", 7)
        bundle.step(StepRecord(...))
        bundle.scenario(ScenarioRecord(...))
        bundle.finish()

Each record is on disk when the call returns. A bundle that was never finished says that it is partial.
"""

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from skep.errors.proof import BundleClosed, BundleNotFound, RunIdTaken
from skep.proof import attestation, facts, junit, messages
from skep.proof.identity import check_run_id, new_run_id
from skep.proof.journal import Journal, write_whole
from skep.proof.page.render import render_page
from skep.proof.reading import read_bundle
from skep.proof.records import (
    FORMAT,
    Counts,
    Header,
    Kind,
    Metadata,
    Outcome,
    ResourceRecord,
    ScenarioRecord,
    Status,
    StepRecord,
    Subject,
)

JOURNALS = ("scenarios", "steps", "resources")
LOG_BYTES_MAX = 8 << 20
"""Of a longer log only the tail is kept."""
PAGE_EVERY_S = 2.0
PAGE_SHARE_MAX = 0.02
"""Refreshing the page and JUnit while the run goes on may cost this share of the run's time."""


class Journals:
    """The appending half: any process that knows the folder may open it and add records."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "metadata.json").exists():
            raise BundleNotFound(f"{folder} is not a proof bundle (no metadata.json)", path=str(folder))
        self.folder = folder
        self._scenarios, self._steps, self._resources = (
            Journal(folder / f"{name}.ndjson") for name in JOURNALS
        )
        self._messages = Journal(folder / "messages.ndjson")
        self._seeds = Journal(folder / "seeds.txt")
        self._all = (self._scenarios, self._steps, self._resources, self._messages, self._seeds)

    def scenario(self, record: ScenarioRecord) -> None:
        """Record that a scenario ended."""
        self._scenarios.append(msgspec.json.encode(record))

    def step(self, record: StepRecord) -> None:
        """Record that a step ended."""
        self._steps.append(msgspec.json.encode(record))

    def resources(self, record: ResourceRecord) -> None:
        """Record what the runner held before or after a scenario."""
        self._resources.append(msgspec.json.encode(record))

    def seed(self, what: str, seed: int) -> None:
        """Record a seed: of the run, or of a scenario by its id."""
        self._seeds.append(f"{seed} {what}".replace("\n", " ").encode())

    def envelopes(self, envelopes: Iterable[Mapping[str, Any]]) -> None:
        """Append Cucumber Messages."""
        for envelope in envelopes:
            self._messages.append(msgspec.json.encode(envelope))

    def log_path(self, name: str) -> Path:
        """Return where a process may write its log itself, so that a killed run still has it."""
        path = self.folder / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add_log(self, name: str, source: Path) -> str:
        """Copy a log (its last `LOG_BYTES_MAX` bytes); return its path inside the bundle."""
        path = self.log_path(name)
        with source.open("rb") as reader:
            reader.seek(max(0, source.stat().st_size - LOG_BYTES_MAX))
            with path.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
        return f"logs/{name}"

    def close(self) -> None:
        """Close the files; the bundle stays as it is."""
        for journal in self._all:
            journal.close()

    def sync(self) -> None:
        """Wait until the disk has every record."""
        for journal in self._all:
            journal.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bundle(Journals):
    """The whole writer, of the process that owns the run."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.metadata = metadata
        self._tally = dict.fromkeys(Status, 0)
        self._page_due = time.monotonic() + PAGE_EVERY_S
        self._finished = False

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        kind: Kind,
        run_id: str | None = None,
        command: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        level: str = "",
        devices: Sequence[str] = (),
        subjects: Sequence[Subject] = (),
        requirements: Mapping[str, str] | None = None,
        replay_of: str = "",
        tree: Path | None = None,
    ) -> Self:
        """Make the folder and its first records. Raises: RunIdTaken, InvalidRunId, BundleWriteFailed."""
        started_at = time.time()
        git = facts.git_state(tree or Path.cwd())
        run_id = check_run_id(run_id or new_run_id(at=started_at, salt=f"{git} {os.getpid()}"))
        metadata = Metadata(
            generated_by=facts.GENERATED_BY,
            format=FORMAT,
            kind=kind,
            run_id=run_id,
            complete=False,
            outcome=Outcome.PARTIAL,
            started_at=started_at,
            git=git,
            host=facts.host(),
            devices=tuple(devices),
            versions=facts.versions(),
            environment=facts.environment(),
            command=tuple(command),
            options=dict(options or {}),
            level=level,
            subjects=tuple(subjects),
            requirements=dict(requirements or {}),
            replay_of=replay_of,
        )
        folder = root / kind / run_id
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            raise RunIdTaken(
                f"{folder} is there already and is never overwritten: choose another --run-id", run_id=run_id
            ) from None
        _write_start(folder, metadata)
        bundle = cls(folder, metadata)
        bundle.refresh()
        return bundle

    def scenario(self, record: ScenarioRecord) -> None:
        """Record that a scenario ended; now and then bring the page up to date. Raises: BundleClosed."""
        if self._finished:
            raise BundleClosed(f"bundle {self.metadata.run_id} is finished", run_id=self.metadata.run_id)
        super().scenario(record)
        self._tally[record.status] += 1
        if time.monotonic() >= self._page_due:
            self.refresh()

    @property
    def counts(self) -> Counts:
        """How many scenarios ended how, so far."""
        tally = self._tally
        return Counts(
            passed=tally[Status.PASSED],
            failed=tally[Status.FAILED] + tally[Status.UNDEFINED],
            skipped=tally[Status.SKIPPED],
        )

    def refresh(self) -> None:
        """Bring `index.html` and `junit.xml` up to date with what has been recorded."""
        began = time.monotonic()
        view = read_bundle(self.folder)
        write_whole(self.folder / "junit.xml", junit.render_junit(view), durable=False)
        write_whole(self.folder / "index.html", render_page(view), durable=False)
        spent = time.monotonic() - began
        self._page_due = time.monotonic() + max(PAGE_EVERY_S, spent / PAGE_SHARE_MAX)

    def finish(
        self, outcome: Outcome | None = None, *, note: str = "", subjects: Sequence[Subject] = ()
    ) -> Metadata:
        """Say how the run ended and attest it; finishing twice is an error. Raises: BundleClosed."""
        if self._finished:
            raise BundleClosed(f"bundle {self.metadata.run_id} is finished", run_id=self.metadata.run_id)
        counts = self.counts
        judged = outcome or (Outcome.FAILED if counts.failed else Outcome.PASSED)
        finished_at = time.time()
        self.envelopes([messages.run_finished(at=finished_at, is_success=judged is Outcome.PASSED)])
        self.metadata = msgspec.structs.replace(
            self.metadata,
            complete=True,
            outcome=judged,
            finished_at=finished_at,
            counts=counts,
            note=note,
            subjects=(*self.metadata.subjects, *subjects),
        )
        self.sync()
        _write_metadata(self.folder, self.metadata)
        self.refresh()
        write_whole(self.folder / attestation.FILE, attestation.render_statement(read_bundle(self.folder)))
        self._finished = True
        self.close()
        return self.metadata


def _write_metadata(folder: Path, metadata: Metadata) -> None:
    write_whole(
        folder / "metadata.json", msgspec.json.format(msgspec.json.encode(metadata), indent=2) + b"\n"
    )


def _write_start(folder: Path, metadata: Metadata) -> None:
    (folder / "logs").mkdir()
    for name in JOURNALS:
        header = Header(
            generated_by=metadata.generated_by, format=f"skep.proof.{name}/{FORMAT}", run_id=metadata.run_id
        )
        write_whole(folder / f"{name}.ndjson", msgspec.json.encode(header) + b"\n", durable=False)
    write_whole(
        folder / "seeds.txt",
        f"# generated by {metadata.generated_by}: one seed and what it seeds a line\n".encode(),
        durable=False,
    )
    opening = (messages.meta(metadata), messages.run_started(at=metadata.started_at))
    write_whole(
        folder / "messages.ndjson",
        b"".join(msgspec.json.encode(each) + b"\n" for each in opening),
        durable=False,
    )
    _write_metadata(folder, metadata)
