"""The hooks that tie the parts together, in the controlling process and in xdist's workers."""

import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _pytest.terminal import TerminalReporter
from pytest_bdd.parser import Step

from skep.proof.bundle import Bundle, Journals
from skep.proof.reading import read_seeds
from skep.proof.records import Kind, Outcome, Status, StepRecord
from skep.testkit import seeds
from skep.testkit.bdd.binding import Bound, all_bound, bound_to, relative
from skep.testkit.bdd.definitions import Vocabulary
from skep.testkit.bdd.lint import Finding, LintItem, Suite, lint, lint_items
from skep.testkit.bdd.proving import Prover
from skep.testkit.bdd.recording import Recording, ScenarioEvent
from skep.testkit.bdd.requirements import Requirements, read_requirements
from skep.testkit.bdd.running import StepRunner
from skep.testkit.ledger.record import resource_record
from skep.testkit.levels import skip_reason
from skep.testkit.machine import machine_devices, tested_subjects

PROPERTY, LEAK_PROPERTY = "skep.scenario", "skep.leak"
RECORDING: pytest.StashKey[Recording] = pytest.StashKey()


class BddPlugin:
    """One suite's run. In a worker process it records; in the controlling one it also writes the bundle."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.root = config.rootpath
        given: dict[str, Any] = getattr(config, "workerinput", {})
        self.is_worker = bool(given)
        self.worker = given.get("workerid", "main")
        self.replayed = _replayed(config)
        self.run_seed: int = (
            given.get("skep_seed")
            or config.getoption("skep_seed")
            or self.replayed.get("run")
            or seeds.draw()
        )
        self.runner = StepRunner(is_async=bool(config.getini("skep_async_steps")))
        self.requirements = self._requirements()
        self.findings: list[Finding] = []
        self.suite: Suite | None = None
        self.folder: Path | None = Path(given["skep_bundle"]) if given.get("skep_bundle") else None
        self.journals: Journals | None = None
        self.prover: Prover | None = None
        self._error: BaseException | None = None

    # Session

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Make the bundle, or in a worker open it."""
        out = self.config.getoption("skep_proof")
        if self.is_worker:
            self.journals = Journals(self.folder) if self.folder else None
        elif out and not self.config.option.collectonly:
            bundle = self._make_bundle(Path(out))
            bundle.seed("run", self.run_seed)
            self.folder, self.journals, self.prover = bundle.folder, bundle, Prover(bundle, self.root)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker the seed and the bundle."""
        node.workerinput["skep_seed"] = self.run_seed
        node.workerinput["skep_bundle"] = str(self.folder) if self.folder else ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Finish the bundle; a suite with findings has failed, also when nothing was run."""
        if self.findings and session.config.option.collectonly:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.prover is not None:
            if exitstatus == pytest.ExitCode.OK and not self.prover.bundle.counts.passed:
                # Skips alone prove nothing, however green they look.
                session.exitstatus = exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
            outcome = {0: Outcome.PASSED, 2: Outcome.INTERRUPTED}.get(int(exitstatus), Outcome.FAILED)
            self.prover.bundle.finish(outcome, note=_note(int(exitstatus)))
        elif self.journals is not None:
            self.journals.close()

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Say where the bundle is, and in a dry run what was found."""
        if self.config.option.collectonly:
            for finding in self.findings:
                terminalreporter.write_line(str(finding), red=True)
        if self.prover is not None:
            bundle = self.prover.bundle
            terminalreporter.write_line(
                f"proof bundle ({bundle.metadata.outcome}): {relative(bundle.folder, Path.cwd())}/index.html, seed {self.run_seed}"
            )

    # Collection

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Lint what was collected, before anything is deselected; with findings, no scenario runs."""
        bound = all_bound(items)
        roots = self._roots()
        if bound or roots:
            self.suite = Suite(
                bound=bound,
                vocabulary=Vocabulary(session),
                root=self.root,
                roots=roots,
                runs_async=bool(self.config.getini("skep_async_steps")),
                requirements=self.requirements,
            )
            self.findings = lint(self.suite)
            self.runner.install()
        self._select(items)
        yield
        if self.findings:
            items[:] = lint_items(session, self.findings) + [item for item in items if bound_to(item) is None]

    def _select(self, items: list[pytest.Item]) -> None:
        feature, tags = self.config.getoption("skep_feature"), self.config.getoption("skep_tags")
        kept = [item for item in items if _is_wanted(bound_to(item), feature=feature, tags=tags)]
        if len(kept) != len(items):
            gone = [item for item in items if item not in set(kept)]
            self.config.hook.pytest_deselected(items=gone)
            items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_apply_tag(self, tag: str) -> None:
        """Register a tag as a marker, so that `--strict-markers` accepts it; pytest-bdd then applies it."""
        self.config.addinivalue_line("markers", f"{tag}: a tag of a feature")

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin the recording; skip what cannot run here, and say why."""
        bound = bound_to(item)
        if bound is None:
            return
        seed = self.seed_of(bound.id)
        level = self.config.getoption("skep_level") or ""
        recording = Recording(bound=bound, seed=seed, worker=self.worker, level=level, say=self._say)
        recording.resources.append(resource_record(bound.id, "before"))
        item.stash[RECORDING] = recording
        if self.journals is not None:
            self.journals.seed(bound.id, seed)
        reason = skip_reason(bound.tags, level=level, devices=self.config.getoption("skep_devices") or "")
        if reason:
            pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Carry what happened in the report of the teardown, which survives xdist."""
        report = yield
        recording = item.stash.get(RECORDING, None)
        if recording is not None:
            recording.phase(report, call.excinfo.value if call.excinfo else None)
            if report.when == "teardown":
                self._carry(item, recording, report)
        return report

    def _carry(self, item: pytest.Item, recording: Recording, report: pytest.TestReport) -> None:
        recording.resources.append(resource_record(recording.bound.id, "after"))
        event = recording.finish()
        report.user_properties.append((PROPERTY, msgspec.json.encode(event).decode()))
        del item.stash[RECORDING]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controlling process: write what a scenario's report carries."""
        if self.prover is None:
            return
        carried = dict(report.user_properties)
        if PROPERTY in carried and report.when == "teardown":
            event = msgspec.json.decode(str(carried[PROPERTY]), type=ScenarioEvent)
            self.prover.scenario(event.with_leak(str(carried.get(LEAK_PROPERTY, ""))))

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_before_step(
        self, request: pytest.FixtureRequest, step: Step, step_func: Callable[..., Any]
    ) -> None:
        """Note when and where a step begins."""
        self.runner.current = step
        code = inspect.unwrap(step_func).__code__
        if recording := request.node.stash.get(RECORDING, None):
            recording.step_begins(step.name, relative(code.co_filename, self.root), code.co_firstlineno)

    def pytest_bdd_after_step(self, request: pytest.FixtureRequest, step: Step) -> None:
        """A step passed."""
        if recording := request.node.stash.get(RECORDING, None):
            recording.step_ends(step, Status.PASSED)

    def pytest_bdd_step_error(
        self, request: pytest.FixtureRequest, step: Step, exception: BaseException
    ) -> None:
        """A step failed, or skipped its scenario."""
        if recording := request.node.stash.get(RECORDING, None):
            is_skip = isinstance(exception, pytest.skip.Exception)
            recording.step_ends(
                step, Status.SKIPPED if is_skip else Status.FAILED, None if is_skip else exception
            )

    def pytest_bdd_step_func_lookup_error(
        self, request: pytest.FixtureRequest, step: Step, exception: BaseException
    ) -> None:
        """A step has no definition, though the lint let it through: a definition came and went."""
        if recording := request.node.stash.get(RECORDING, None):
            recording.step_ends(step, Status.UNDEFINED, exception)

    @pytest.hookimpl(trylast=True)
    def pytest_bdd_after_scenario(self) -> None:
        """Steps are over; fixtures may still use the loop."""
        self.runner.end_steps()

    # Fixtures

    @pytest.fixture
    def portal(self) -> Iterator[Any]:
        """The loop in which the scenario's async steps run; it outlives the fixtures that ask for it."""
        yield self.runner.portal
        self.runner.end_scenario()

    @pytest.fixture(autouse=True)
    def _skep_scenario(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """End the scenario's loop, whatever happened."""
        yield
        if bound_to(request.node) is not None:
            self.runner.end_scenario()

    @pytest.fixture
    def seed(self, request: pytest.FixtureRequest) -> int:
        """The seed of this scenario (of this test): recorded, and the same in a replay."""
        bound = bound_to(request.node)
        return self.seed_of(bound.id if bound else request.node.nodeid)

    def seed_of(self, scenario_id: str) -> int:
        """Return a scenario's seed: from the bundle that is replayed, else derived from the run's."""
        return self.replayed.get(scenario_id) or seeds.derive(self.run_seed, scenario_id)

    # Own

    def _say(self, record: StepRecord) -> None:
        if self.journals is not None:
            self.journals.step(record)
        if self.config.getoption("skep_live"):
            mark = {"passed": "✓", "failed": "✕", "skipped": "-"}.get(record.status, "?")
            sys.stderr.write(f"    {mark} {record.keyword} {record.text} ({record.duration_ms:.0f} ms)\n")

    def _roots(self) -> list[Path]:
        """The suite's own folders, when all of them are being collected."""
        asked = [Path(str(arg).split("::")[0]) for arg in self.config.args]
        folders = [
            (self.config.invocation_params.dir / path).resolve() for path in asked if "::" not in str(path)
        ]
        folders = [folder for folder in folders if folder.is_dir()]
        declared = [Path(each).resolve() for each in self.config.getini("skep_features")]
        if not declared:
            return folders
        whole = all(any(root.is_relative_to(folder) for folder in folders) for root in declared)
        return declared if whole else []

    def _requirements(self) -> Requirements | None:
        folder = self.config.getini("skep_requirements")
        return read_requirements(self.root / folder) if folder else None

    def _make_bundle(self, out: Path) -> Bundle:
        option = self.config.getoption
        names = ("skep_feature", "skep_tags", "skep_level", "skep_backend", "skep_devices", "skep_url")
        command = option("skep_command")
        return Bundle.create(
            out,
            kind=Kind.BDD,
            run_id=option("skep_run_id"),
            command=[command] if command else ["pytest", *self.config.invocation_params.args],
            options={
                **{name.removeprefix("skep_"): option(name) for name in names if option(name)},
                "paths": "\n".join(str(arg) for arg in self.config.args),
            },
            level=option("skep_level") or "",
            devices=machine_devices(),
            subjects=tested_subjects(),
            requirements=self.requirements.texts if self.requirements else {},
            replay_of=Path(option("skep_replay")).name if option("skep_replay") else "",
            tree=self.root,
        )


def _replayed(config: pytest.Config) -> dict[str, int]:
    bundle = config.getoption("skep_replay")
    return read_seeds(Path(bundle) / "seeds.txt") if bundle else {}


def _is_wanted(bound: Bound | None, *, feature: str | None, tags: str | None) -> bool:
    if bound is None:
        return not (feature or tags)
    if feature:
        stem = Path(bound.uri).name
        wanted = Path(feature)
        if not (
            stem in {wanted.name, f"{feature}.feature"}
            and (wanted.parent == Path() or bound.uri.endswith(wanted.as_posix().removeprefix("./")))
        ):
            return False
    return not tags or _fits(tags, bound.tags)


def _fits(expression: str, tags: tuple[str, ...]) -> bool:
    from _pytest.mark.expression import Expression

    return Expression.compile(expression.replace("@", "")).evaluate(lambda name, /, **_: name in tags)


def _note(status: int) -> str:
    return {
        3: "pytest itself failed: see the terminal's output",
        4: "pytest was called wrongly: see the terminal's output",
        5: "no scenario was run: nothing is proved",
    }.get(status, "")


__all__ = ["RECORDING", "BddPlugin", "LintItem"]
