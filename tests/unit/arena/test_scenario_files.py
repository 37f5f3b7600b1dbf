"""Scenarios of one's own: read from TOML, swept like the built-in ones, told by line where they are wrong."""

from pathlib import Path

import pytest

from skep.arena.placement import Processes
from skep.arena.scenarios import select_scenarios
from skep.arena.scenarios.catalog import find_scenario
from skep.arena.scenarios.files import load_scenario
from skep.arena.sweep import make_plan, run_sweep
from skep.errors import InvalidConfig
from skep.errors.arena import TraceInvalid

TEXT = """
about = "three pods ask for 1.5 CPU where two fit"
target = 3
reference = {cpu_m = 1000, memory_bytes = 268435456, replicas = 3}
[[plans]]
name = "web"
replicas = 3
cpu = "1500m"
[[nodes]]
count = 2
cpu = "2"
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_file_is_swept_in_other_processes_too(tmp_path: Path) -> None:
    written(tmp_path, TEXT)
    written(tmp_path, TEXT.replace("target = 3", "target = 2"), "other.toml")
    chosen = select_scenarios(str(tmp_path))
    assert [Path(one.name).name for one in chosen] == ["mine.toml", "other.toml"]
    results = run_sweep(make_plan(chosen, ("heuristic",), (0,), "shaped"), Processes(1))
    assert [one.is_solved for one in results.trials] == [True, True]


def test_file_and_built_in_names_mix(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    assert [one.target for one in select_scenarios(f"{path}, too-few")] == [3, 5]
    assert find_scenario(str(path)).reference is not None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidConfig),
        ("target = ", InvalidConfig),
        (TEXT + "colour = 3\n", InvalidConfig),
        (TEXT.replace("target = 3", "target = -1"), InvalidConfig),
        (TEXT.replace("target = 3", 'target = "three"'), InvalidConfig),
        (TEXT.replace('name = "web"', 'name = "web"\nkind = "Unicorn"'), InvalidConfig),
        (TEXT.replace("1500m", "lots"), TraceInvalid),
    ],
)
def test_wrong_file_is_told(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = written(tmp_path, text, f"{abs(hash(text))}.toml")
    with pytest.raises(error):
        load_scenario(str(path))


def test_missing_file_and_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no scenario"):
        select_scenarios(str(tmp_path))
    with pytest.raises(InvalidConfig, match="no scenario"):
        find_scenario(str(tmp_path / "none.toml"))
