"""pytest hooks: a failing test's report shows the log tail and the memory of each worker that it started.

pytest_plugins = ["skep.testkit.harness.plugin"]
"""

from collections.abc import Generator

import pytest

from skep.testkit.harness import records


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget the workers of earlier tests."""
    records.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the workers have to tell to a failing phase's report."""
    report = yield
    if report.failed:
        for record in records.records():
            report.sections.append((f"worker {record.name}", "\n".join(record.lines())))
    return report
