"""Reading a bundle: finished, partial, or still being written by another process."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from skep.errors.proof import BundleNotFound, BundleUnreadable
from skep.proof.records import Metadata, Outcome, ResourceRecord, ScenarioRecord, Status, StepRecord

T = TypeVar("T")
LOG_TAIL_BYTES = 6_000


@dataclass(frozen=True)
class BundleView:
    """A bundle as it could be read. `problems` names every line that did not parse."""

    folder: Path
    metadata: Metadata
    scenarios: tuple[ScenarioRecord, ...]
    steps: tuple[StepRecord, ...]
    resources: tuple[ResourceRecord, ...]
    seeds: dict[str, int]
    problems: tuple[str, ...] = ()
    _steps_of: dict[str, list[StepRecord]] = field(default_factory=lambda: defaultdict(list), repr=False)

    def __post_init__(self) -> None:
        for step in self.steps:
            self._steps_of[step.scenario].append(step)
        for steps in self._steps_of.values():
            steps.sort(key=lambda step: step.index)

    def steps_of(self, scenario_id: str) -> list[StepRecord]:
        """The steps of a scenario, in order."""
        return self._steps_of.get(scenario_id, [])

    def log_tail(self, name: str) -> str:
        """The end of one of the bundle's logs; empty when it is not there."""
        path = self.folder / name
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    @property
    def outcome(self) -> Outcome:
        """How the run ended; partial when it never said."""
        return self.metadata.outcome if self.metadata.complete else Outcome.PARTIAL

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The scenarios that have steps but never ended: what was running when the run was killed."""
        ended = {record.id for record in self.scenarios}
        return tuple(sorted(set(self._steps_of) - ended))

    def coverage(self) -> dict[str, list[ScenarioRecord]]:
        """Each known requirement with the scenarios that carry its tag."""
        found: dict[str, list[ScenarioRecord]] = {name: [] for name in self.metadata.requirements}
        for record in self.scenarios:
            for tag in record.tags:
                if tag in found:
                    found[tag].append(record)
        return found


def read_bundle(folder: Path) -> BundleView:
    """Read what is there. A last line without its end is one still being written, and is left out.

    Raises: BundleNotFound, BundleUnreadable.
    """
    path = folder / "metadata.json"
    try:
        metadata = msgspec.json.decode(path.read_bytes(), type=Metadata)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleNotFound(f"{folder} is not a proof bundle (no metadata.json)", path=str(folder)) from None
    except msgspec.DecodeError as error:
        raise BundleUnreadable(f"{path} does not parse: {error}", path=str(path)) from error
    problems: list[str] = []
    return BundleView(
        folder=folder,
        metadata=metadata,
        scenarios=tuple(_records(folder / "scenarios.ndjson", ScenarioRecord, problems)),
        steps=tuple(_records(folder / "steps.ndjson", StepRecord, problems)),
        resources=tuple(_records(folder / "resources.ndjson", ResourceRecord, problems)),
        seeds=read_seeds(folder / "seeds.txt"),
        problems=tuple(problems),
    )


def read_seeds(path: Path) -> dict[str, int]:
    """Return each seed by what it seeds; the last line about a thing wins."""
    seeds: dict[str, int] = {}
    for line in _whole_lines(path):
        seed, _, what = line.decode("utf-8", "replace").partition(" ")
        if seed.isdecimal():
            seeds[what] = int(seed)
    return seeds


def read_envelopes(folder: Path) -> list[dict[str, Any]]:
    """Return the Cucumber Messages of a bundle. Raises: BundleUnreadable."""
    try:
        return [msgspec.json.decode(line) for line in _whole_lines(folder / "messages.ndjson")]
    except msgspec.DecodeError as error:
        raise BundleUnreadable(f"{folder}/messages.ndjson does not parse: {error}") from error


def list_bundles(root: Path) -> list[BundleView]:
    """Every bundle under a root, newest first; folders that are none are passed over."""
    found = []
    for path in root.glob("*/*/metadata.json"):
        try:
            found.append(read_bundle(path.parent))
        except BundleUnreadable:
            continue
    return sorted(found, key=lambda view: view.metadata.started_at, reverse=True)


def worst(statuses: list[Status]) -> Status | None:
    """The status that decides for a group; None for an empty one."""
    order = (Status.FAILED, Status.UNDEFINED, Status.SKIPPED, Status.PASSED)
    return next((status for status in order if status in statuses), None)


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                yield line.rstrip(b"\n")


def _records(path: Path, kind: type[T], problems: list[str]) -> Iterator[T]:
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(_whole_lines(path), start=1):
        if number == 1 and line.startswith(b'{"generated_by"'):
            continue
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            problems.append(f"{path.name}:{number}: {error}")
