"""`skep arena fleet`: what it prints, what it writes, how it refuses."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.requests import generated_requests
from skep.cli.arena import app
from skep.errors import InvalidConfig
from skep.errors.arena import TraceNotFound, UnknownName

RUN = CliRunner()


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    lines = [
        msgspec.json.encode(one) for one in generated_requests(60, 5, 1, prompt_tokens=60, output_tokens=20)
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_policies_are_compared_as_json(requests: Path) -> None:
    done = RUN.invoke(app, ["fleet", str(requests), "-p", "skep", "-p", "random", "--seeds", "2", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [arm["policy"] for arm in found["arms"]] == ["skep", "random"]
    assert all(run["completed"] == 60 for arm in found["arms"] for run in arm["runs"])


def test_a_table_is_printed_and_both_files_are_written(requests: Path, tmp_path: Path) -> None:
    model = tmp_path / "worker.json"
    model.write_bytes(msgspec.json.encode(WorkerModel(name="w", slots=8)))
    done = RUN.invoke(
        app,
        ["fleet", str(requests), "--model", str(model), "--seeds", "1", "--output", str(tmp_path / "out")],
    )
    assert done.exit_code == 0, done.output
    assert "goodput" in done.stdout
    assert json.loads((tmp_path / "out" / "fleet.json").read_text())["plan"]["model"]["slots"] == 8
    assert "| skep |" in (tmp_path / "out" / "fleet.md").read_text()


def test_a_fleet_that_scales_costs_less_than_its_most(requests: Path) -> None:
    arguments = ["fleet", str(requests), "-p", "skep", "--seeds", "1", "--json", "--replicas", "1"]
    done = RUN.invoke(app, [*arguments, "--replicas-max", "6", "--down-after", "5", "--speed", "6"])
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)["arms"][0]["runs"]
    assert 1 < run["replicas_most"] <= 6
    assert run["replicas_mean"] < run["replicas_most"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["none.jsonl"], TraceNotFound),
        (["{requests}", "-p", "magic"], UnknownName),
        (["{requests}", "--model", "none.json"], InvalidConfig),
        (["{requests}", "--replicas-min", "3", "--replicas-max", "2"], InvalidConfig),
        (["{requests}", "--seeds", "1", "-p", "skep", "-o", "{requests}/inside"], InvalidConfig),
    ],
)
def test_what_cannot_be_done_is_told(requests: Path, arguments: list[str], error: type[Exception]) -> None:
    done = RUN.invoke(app, ["fleet", *(text.format(requests=requests) for text in arguments)])
    assert isinstance(done.exception, error)
