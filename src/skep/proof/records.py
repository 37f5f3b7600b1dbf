"""What a proof bundle records: one frozen noun a line of its files."""

from enum import StrEnum

import msgspec

FORMAT = 1
"""The version of our own files' format; a reader ignores fields that it does not know."""


class Kind(StrEnum):
    """What kind of run left the bundle; also the folder's name."""

    BDD = "bdd"
    CHECK = "check"
    HARNESS = "harness"
    ROLLOUT = "rollout"
    ARENA = "arena"


class Status(StrEnum):
    """How a scenario or a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNDEFINED = "undefined"


class Outcome(StrEnum):
    """How a run ended. `partial` is a run that never said how."""

    PASSED = "passed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    PARTIAL = "partial"


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed: the exception's type, its message, and the trace as text."""

    type: str
    message: str
    trace: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of each of our NDJSON files: that it is generated, by what, and what follows."""

    generated_by: str
    format: str
    run_id: str


class ScenarioRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario (or check, or cell of a matrix) that ran. `id` is stable between runs: `uri:line[:row]`."""

    id: str
    feature: str
    name: str
    status: Status
    duration_ms: float
    tags: tuple[str, ...] = ()
    uri: str = ""
    line: int = 0
    seed: int = 0
    level: str = ""
    worker: str = "main"
    started_at: float = 0.0
    error: Failure | None = None
    reason: str = ""
    logs: tuple[str, ...] = ()


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a scenario, in order. `location` is the file and line of the step's definition."""

    scenario: str
    index: int
    keyword: str
    text: str
    status: Status
    duration_ms: float = 0.0
    line: int = 0
    location: str = ""
    error: Failure | None = None


class ResourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner's process held before or after a scenario."""

    scenario: str
    phase: str
    at: float
    rss_bytes: int
    fds: int
    threads: int
    ports: int
    children: int
    temporary_files: int
    device_memory_bytes: int | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was tested, by digest: the wheel, a model."""

    name: str
    sha256: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many scenarios ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.passed + self.failed + self.skipped


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that was tested, and whether the tree differed from it."""

    commit: str
    dirty: bool


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of the run. Never an address or a user's name."""

    system: str
    machine: str
    python: str
    cpu_count: int
    ram_total_bytes: int
    ci: str = ""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a run. Written at its start (`complete` false) and replaced at its end."""

    generated_by: str
    format: int
    kind: Kind
    run_id: str
    complete: bool
    outcome: Outcome
    started_at: float
    finished_at: float | None = None
    counts: Counts = msgspec.field(default_factory=Counts)
    git: GitState | None = None
    host: Host | None = None
    devices: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    environment: dict[str, str] = {}
    command: tuple[str, ...] = ()
    options: dict[str, str] = {}
    level: str = ""
    subjects: tuple[Subject, ...] = ()
    requirements: dict[str, str] = {}
    replay_of: str = ""
    note: str = ""
