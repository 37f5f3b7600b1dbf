"""The ledger at work: the test that leaks is the one that fails.

What a fixture of a wider scope opens belongs to that scope, and is exempt. The process becomes a subreaper, so that
orphaned grandchildren stay visible; its temporary files go to a folder of its own, so that other runs' do not count.
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from skep.process.guard import Guard
from skep.testkit.ledger.leaks import describe, settle
from skep.testkit.ledger.snapshot import NOTHING, Snapshot, take

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Leaked(AssertionError):
    """A test left something behind."""


class LedgerPlugin:
    """Holds each test against what was there before it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._exempt = NOTHING
        self._before = NOTHING
        self._depth = 0
        self._folder: Path | None = None
        self._old_tmpdir: str | None = None
        self._guard: Guard | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Become a subreaper, and give this process a folder for temporary files, which a guard removes at the last."""
        if importlib.util.find_spec("uvloop") is not None:
            import uvloop

            uvloop.new_event_loop().close()  # libuv keeps one pipe for the life of the process: not the first user's.
        resource_tracker.ensure_running()  # multiprocessing keeps one for the life of the process as well.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if hasattr(
            self.config, "workerinput"
        ):  # xdist's worker would go on for ten seconds after its controller's death.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        self._old_tmpdir = os.environ.get("TMPDIR")
        self._folder = Path(tempfile.mkdtemp(prefix="skep-t-"))
        self._guard = Guard().start()
        self._guard.folder(self._folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Put everything back."""
        if self._folder is None:
            return
        tempfile.tempdir = None
        if self._old_tmpdir is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._old_tmpdir
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        if self._guard is not None:
            self._guard.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run the test's three phases, then judge: its own report, not an error beside it, says that it leaked."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._exempt, before = NOTHING, take()
        self._before = before
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        leaked = settle(before, self._exempt)
        if not leaked.is_empty:
            _blame(reports, leaked)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if not leaked.is_empty:
            _clean_up(leaked, Path(tempfile.gettempdir()))
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """What a fixture of a wider scope opens is not its first user's."""
        if fixturedef.scope == "function":
            return (yield)
        before = take() if self._depth == 0 else NOTHING
        self._depth += 1
        try:
            return (yield)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._exempt = self._exempt.with_also(take().leaked_since(before))


def _blame(reports: list[pytest.TestReport], leaked: Snapshot) -> None:
    """Fail the test's own phase; a test that failed already keeps its failure, and the leak is added to it."""
    text = "leaked: " + "; ".join(describe(leaked))
    report = next((each for each in reports if each.when == "call"), reports[0])
    if report.failed:
        report.sections.append(("leak ledger", text))
    else:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} {text}"
    reports[-1].user_properties.append(("skep.leak", text))


def _clean_up(leaked: Snapshot, folder: Path) -> None:
    """End what leaked, so that one leak is not found twice, nor trips another test."""
    for pid, _ in leaked.children:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    for name in leaked.files:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
