import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skep.proof.bundle import Bundle
from skep.proof.records import Failure, Kind, ScenarioRecord, Status, StepRecord


def fill(bundle: Bundle, *, failing: str = "", count: int = 3) -> None:
    for number in range(count):
        name = f"f.feature:{number}"
        is_bad = name == failing
        status = Status.FAILED if is_bad else Status.PASSED
        error = Failure(type="AssertionError", message="1 != <2>\x00", trace="Traceback…") if is_bad else None
        bundle.seed(name, number)
        bundle.step(
            StepRecord(scenario=name, index=0, keyword="Given", text="a & b", status=status, error=error)
        )
        logs = ()
        if is_bad:
            bundle.log_path("hive.log").write_text("the last words\n")
            logs = ("logs/hive.log",)
        bundle.scenario(
            ScenarioRecord(
                id=name,
                feature="F <script>",
                name=f"scenario {number}",
                status=status,
                duration_ms=10.0 * number,
                tags=("AB-CD-1001",),
                started_at=time.time(),
                error=error,
                logs=logs,
            )
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bundle]]:
    made: list[Bundle] = []

    def start(**facts) -> Bundle:
        facts = {"kind": Kind.BDD, "requirements": {"AB-CD-1001": "it holds"}, **facts}
        made.append(Bundle.create(tmp_path / "proof", **facts))
        return made[-1]

    yield start
    for bundle in made:
        bundle.close()


@pytest.fixture
def finished(start) -> Bundle:
    bundle = start()
    fill(bundle, failing="f.feature:1")
    bundle.finish()
    return bundle


@pytest.fixture
def fill_bundle() -> Callable[..., None]:
    return fill
