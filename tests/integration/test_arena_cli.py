"""`skep arena` as a user calls it: results, exit codes, files, one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skep.arena.trace.generate import demo_trace


def skep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "skep.cli.main", "arena", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = skep(tmp_path, "trace", "generate", "demo.msgpack", "--cpu", "1500m")
    assert made.returncode == 0, made.stderr
    return tmp_path


def test_step_then_diff_then_episode(folder: Path) -> None:
    step = skep(folder, "step", "demo.msgpack", "--policy", "heuristic", "--json")
    assert step.returncode == 0, step.stderr
    record = json.loads(step.stdout)
    assert (record["action"], record["target"], record["status"]) == ("reduce_cpu_small", 3, "ok")
    diff = skep(folder, "trace", "diff", "demo.msgpack", record["trace_out"])
    assert diff.returncode == 1
    assert "requests.cpu: '1500m' → '1'" in diff.stdout
    episode = skep(folder, "episode", record["trace_out"])
    assert episode.returncode == 0
    assert "solved in 1 steps" in episode.stdout


def test_hooks_of_the_command_run_around_every_step(folder: Path) -> None:
    told = 'sh -c "echo $SKEP_PHASE $SKEP_SIMULATION >> told"'
    hooks = [f"--hook={phase}={told}" for phase in ("pre_start", "post_stop")]
    assert skep(folder, "episode", "demo.msgpack", *hooks).returncode == 0
    told_lines = [line.split() for line in (folder / "told").read_text().splitlines()]
    assert [phase for phase, _ in told_lines] == ["pre_start", "post_stop"] * 2
    assert told_lines[0][1] == told_lines[1][1] != told_lines[2][1]
    failed = skep(folder, "step", "demo.msgpack", "--hook", "pre_start=false")
    assert failed.returncode == 1
    assert "hook pre_start" in failed.stderr
    wrong = skep(folder, "step", "demo.msgpack", "--hook", "before=true")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no phase 'before'" in wrong.stderr


def test_episode_that_is_not_solved_exits_1(folder: Path) -> None:
    found = skep(folder, "episode", "demo.msgpack", "--policy", "simple", "--steps", "3", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["ended_by"] == "bound"


def test_recorded_episode_replays(folder: Path) -> None:
    first = skep(folder, "episode", "demo.msgpack", "--json")
    again = skep(
        folder,
        "episode",
        "demo.msgpack",
        "--driver",
        "recorded",
        "--bundle",
        "runs",
        "--workspace",
        "again",
        "--json",
    )
    one, other = json.loads(first.stdout), json.loads(again.stdout)
    assert [step["observation"] for step in one["steps"]] == [step["observation"] for step in other["steps"]]
    departed = skep(
        folder, "episode", "demo.msgpack", "--driver", "recorded", "--bundle", "runs", "--seed", "9"
    )
    assert departed.returncode == 1
    assert "holds no sim-web-" in departed.stderr


def test_nodes_decide_what_fits(folder: Path) -> None:
    found = skep(folder, "step", "demo.msgpack", "--nodes", "3x4cpu/8Gi", "--json")
    assert json.loads(found.stdout)["observation"]["ready"] == 3


def test_trace_commands(folder: Path) -> None:
    info = json.loads(skep(folder, "trace", "info", "demo.msgpack", "--json").stdout)
    assert info["workloads"]["default/web"]["cpu_m"] == 1500
    assert skep(folder, "trace", "convert", "demo.msgpack", "demo.json").returncode == 0
    assert skep(folder, "trace", "convert", "demo.json", "back.msgpack").returncode == 0
    assert (folder / "back.msgpack").read_bytes() == (folder / "demo.msgpack").read_bytes()
    assert skep(folder, "trace", "diff", "demo.msgpack", "back.msgpack").returncode == 0
    assert skep(folder, "trace", "validate", "demo.msgpack").returncode == 0
    assert skep(folder, "trace", "generate", "many.msgpack", "--events", "300", "--seed", "1").returncode == 0
    assert json.loads(skep(folder, "trace", "info", "many.msgpack", "--json").stdout)["events"] == 300


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("step", "none.msgpack"), 1, "no trace at none.msgpack"),
        (("step", "demo.msgpack", "--deployment", "db"), 1, "nothing named 'db'"),
        (("step", "demo.msgpack", "--policy", "psychic"), 1, "there are noop"),
        (("step", "demo.msgpack", "--nodes", "many"), 2, "COUNTxCPU/MEMORY"),
        (("step", "demo.msgpack", "--driver", "magic"), 2, "embedded, simkube or recorded"),
        (("step", "demo.msgpack", "--driver", "recorded"), 2, "--bundle"),
        (("step", "demo.msgpack", "--driver", "simkube", "--kubeconfig", "none"), 1, "no Kubernetes cluster"),
        (("step", "demo.msgpack", "--policy-option", "x"), 2, "NAME=VALUE"),
        (("bench", "--scenarios", "none"), 1, "no scenario"),
        (("bench", "--policies", "dqn"), 1, "does not take"),
        (("report", "none"), 1, "no results of a sweep"),
        (("trace", "validate", "torn.msgpack"), 1, "ends after"),
    ],
)
def test_errors_are_one_line_with_the_next_step(
    folder: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (folder / "torn.msgpack").write_bytes(demo_trace().to_bytes()[:50])
    found = skep(folder, *arguments)
    assert found.returncode == code, found.stderr
    (line,) = found.stderr.strip().splitlines()
    assert told in line
    assert found.stdout == ""
    assert not (folder / "runs").exists()


def test_bench_writes_json_markdown_and_a_page(folder: Path) -> None:
    arguments = (
        "--scenarios",
        "too-few,held-out-job",
        "--policies",
        "noop,heuristic",
        "--seeds",
        "1",
        "--quiet",
    )
    found = skep(folder, "bench", "--out", "out", *arguments)
    assert found.returncode == 0, found.stderr
    assert "| heuristic | 1/1 |" in found.stdout
    assert sorted(one.name for one in (folder / "out").iterdir() if not one.name.startswith(".")) == [
        "index.html", "plan.json", "results.json", "results.md", "trials.jsonl",
    ]  # fmt: skip
    standings = json.loads(skep(folder, "report", "out", "--json").stdout)
    assert standings[0]["policy"] == "heuristic"


def test_train_then_use(folder: Path) -> None:
    trained = skep(
        folder, "train", "dqn.npz", "--scenarios", "cpu-slightly-over", "--steps", "3000", "--quiet", "--json"
    )
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["steps"] >= 3000
    found = skep(folder, "episode", "demo.msgpack", "--policy", "dqn", "--policy-option", "path=dqn.npz")
    assert found.returncode == 0, found.stdout + found.stderr


def test_help_names_every_command(folder: Path) -> None:
    text = skep(folder, "--help").stdout
    for command in ("step", "episode", "train", "bench", "sweep", "report", "trace", "policies"):
        assert command in text


def test_configuration_gives_the_defaults(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/one.toml").write_text(
        'target = 1\n[[plans]]\nname = "web"\nreplicas = 1\n[[nodes]]\ncount = 1\n'
    )
    (folder / "skep.toml").write_text(
        '[arena]\nnodes = ["3x4cpu/8Gi"]\nscenario_folders = ["mine"]\nsafeguards = {cpu_m_max = 1600}\n'
        '[[arena.hooks]]\nphase = "post_stop"\nargv = ["touch", "stopped"]\n'
    )
    found = skep(folder, "step", "demo.msgpack", "--policy", "bump_cpu", "--target", "9", "--json")
    record = json.loads(found.stdout)
    assert record["observation"]["ready"] == 3
    assert record["action_info"]["blocked"] is True
    assert (folder / "stopped").exists()
    bench = skep(folder, "bench", "--policies", "noop", "--seeds", "1", "--quiet")
    assert "| mine/one.toml | 1/1 |" in bench.stdout
    (folder / "skep.toml").write_text("[arena]\ncolour = 3\n")
    wrong = skep(folder, "step", "demo.msgpack")
    assert (wrong.returncode, "colour" in wrong.stderr) == (2, True)


def test_two_processes_with_one_seed_leave_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", number)
        arguments = (
            "episode",
            "demo.msgpack",
            "--policy",
            "random",
            "--seed",
            "5",
            "--workspace",
            f"w{number}",
        )
        assert skep(folder, *arguments).returncode in (0, 1)
    first, second = ((folder / f"w{number}/runs/step.jsonl").read_bytes() for number in "12")
    assert first.replace(b"w1/", b"w2/") == second


def test_every_decision_is_explained(folder: Path) -> None:
    decisions = json.loads(skep(folder, "explain", "demo.msgpack", "--json").stdout)
    assert [one["outcome"] for one in decisions].count("scheduled") == 2
    (waiting,) = [one for one in decisions if one["outcome"] == "unschedulable"]
    assert {one["plugin"] for one in waiting["rejections"].values()} == {"NodeResourcesFit"}
    text = skep(folder, "explain", "demo.msgpack").stdout
    assert "0/2 nodes are available" in text
    assert "Insufficient cpu" in text
