"""A pytest plugin of the mutation run: names the scenario to the daemons, and keeps durations and failing steps."""

import json
import os
from pathlib import Path
from typing import Any

import pytest


def _add(name: str, row: dict[str, Any]) -> None:
    with Path(os.environ["SKEP_NOTES"], name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    os.environ["SKEP_SCENARIO"] = item.nodeid


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _add("durations", {"id": report.nodeid, "s": round(report.duration, 2), "outcome": report.outcome})


def pytest_bdd_step_error(step: Any, exception: BaseException) -> None:
    told = (str(exception).strip() or repr(exception)).splitlines()[0][:200]
    _add(
        "failures",
        {"id": os.environ["SKEP_SCENARIO"], "step": f"{step.keyword.strip()} {step.name}", "error": told},
    )
