"""Models and engines brought to the machine."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from skep.testkit.fleet.hub import HubFault
from skep.testkit.fleet.lab import Lab
from skep.testkit.fleet.source import ENGINE, builds_file, missing_tools, write_source
from skep.testkit.steps.assertions import assert_status
from skep.testkit.world import World

RUN_S_MAX = 10


@given(parsers.parse('the hub answers "{fault}" {times:d} times for model "{name}"'))
def hub_fault(world: World, fault: str, times: int, name: str) -> None:
    """Break the hub: unavailable, truncated, wrong_bytes or refused_range, this many times."""
    lab = world.own()
    lab.add_model(name)
    lab.hub.files[f"{name}.gguf"].faults.append(HubFault(fault, times))


@given(parsers.parse('the hub takes {seconds:g} s for model "{name}"'))
def slow_hub(world: World, seconds: float, name: str) -> None:
    """Offer a model whose download takes its time."""
    world.own().add_model(name, download_s=seconds)


@given(parsers.parse('the engine "{engine}" is to be compiled from source'))
def engine_from_source(world: World, engine: str) -> None:
    """Declare an engine whose program is built here: a git repository of ours, CMake, a C compiler."""
    if reason := missing_tools():
        pytest.skip(reason)
    lab = world.own()
    repo = write_source(_source_of(lab))
    lab.engines.append(
        {
            "id": engine,
            "kind": "command",
            "way": "source",
            "program": ENGINE,
            "argv": [ENGINE, "{port}"],
            "repo": str(repo),
            "ref": "v1",
        }
    )


@given(parsers.parse('the machine has no "{tool}"'))
def without_tool(world: World, tool: str) -> None:
    """Give the hive a PATH with every program of this machine's but this one, and those that were taken before."""
    lab = world.own()
    programs = lab.folder / "programs"
    if not programs.is_dir():
        programs.mkdir()
        for folder in os.get_exec_path():
            for path in Path(folder).glob("*"):
                link = programs / path.name
                if not link.is_symlink():
                    link.symlink_to(path)
    (programs / tool).unlink()
    lab.env["PATH"] = str(programs)


@when(parsers.parse('I preload pool "{pool_id}" with model "{model}" on engine "{engine}"'))
def preload_on_engine(world: World, pool_id: str, model: str, engine: str) -> None:
    """Declare a pool on an engine of skep.toml, and load it."""
    assert_status(world.declare(pool_id, model, engine=engine, backend="llama"), 202)
    assert_status(world.act(pool_id, "preload"), 202)


@given("provisioning may not download")
def no_downloads(world: World) -> None:
    """Forbid downloads by the machine's own configuration."""
    world.own().provisioning["allow"] = ["build", "package"]


@then(parsers.parse('pool "{pool_id}" should tell "{text}"'))
def tells_text(world: World, pool_id: str, text: str) -> None:
    """Wait until the pool's last error says this to its user."""
    found = world.until_pool(pool_id, lambda pool: pool["last_error"] is not None, what="tells an error")
    assert text in found["last_error"]["message"], found["last_error"]


@then("the engine should download the model")
def model_downloaded(world: World) -> None:
    """Wait until the hub was asked and the file stands in the cache with the right bytes."""
    pool_id = list(world.marks)[-1]
    name = world.pool(pool_id)["model"]
    assert_downloaded(world, name)


@then(parsers.parse('the model "{name}" should be downloaded {times:d} times'))
def downloaded_times(world: World, name: str, times: int) -> None:
    """Hold how often the hub sent the file from its beginning."""
    assert_downloaded(world, name)
    whole = [each for each in world.lab.hub.files[f"{name}.gguf"].requests if each in {"GET", "GET bytes=0-"}]
    assert len(whole) == times, world.lab.hub.files[f"{name}.gguf"].requests


@then(parsers.parse('the download of model "{name}" should have been resumed'))
def download_resumed(world: World, name: str) -> None:
    """Hold that a later request asked for the rest."""
    assert_downloaded(world, name)
    asked = world.lab.hub.files[f"{name}.gguf"].requests
    assert any("bytes=" in each and "bytes=0-" not in each for each in asked), asked


@then(parsers.parse('no file of model "{name}" should be in the cache'))
def not_in_cache(world: World, name: str) -> None:
    """Hold that nothing that failed its checksum stands under the model's name."""
    found = [path for path in _cached(world) if path.suffix == ".gguf" and name in path.name]
    assert not found, found


@then(parsers.parse('the engine "{engine}" should have been compiled {times:d} times'))
def compiled_times(world: World, engine: str, times: int) -> None:
    """Hold how often it was linked, and that one program for each stands in the engines' folder and runs."""
    told = builds_file(_source_of(world.lab))
    builds = told.read_text().splitlines() if told.exists() else []
    assert len(builds) == times, f"{engine} was built {len(builds)} times"
    programs = [
        path
        for path in (world.lab.folder / "cache").rglob(ENGINE)
        if path.is_file() and os.access(path, os.X_OK)
    ]
    assert len(programs) == times, f"{engine}: {programs}"
    for path in programs:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, timeout=RUN_S_MAX
        )
        assert done.stdout.strip() == f"{ENGINE} 1.0.0", done


@then(parsers.parse('the model "{name}" should not have been asked for'))
def not_asked(world: World, name: str) -> None:
    """Hold that the hub saw no request."""
    file = world.lab.hub.files[f"{name}.gguf"]
    assert file.requests == [], file.requests


@then(parsers.parse('pool "{pool_id}" should show progress between 0 and 1'))
def shows_progress(world: World, pool_id: str) -> None:
    """Wait for a figure of the way to ready."""
    found = world.until_pool(
        pool_id, lambda pool: pool["progress"] is not None or pool["state"] == "ready", what="shows progress"
    )
    told = [each["facts"]["progress"] for each in world.events(pool_id, kind="progress")]
    shown = [value for value in (found["progress"], *told) if value is not None]
    assert shown, found
    assert all(0 <= value <= 1 for value in shown), shown


def _source_of(lab: Lab) -> Path:
    return lab.folder / "engine-source"


def assert_downloaded(world: World, name: str) -> None:
    """Hold that the hub was asked for a model, and that its bytes are in the cache."""
    file = world.own().hub.files[f"{name}.gguf"]
    wanted = file.sha256

    def is_there() -> bool:
        return any(
            path.stat().st_size == len(file.data) and _sha256(path) == wanted for path in _cached(world)
        )

    world.lab.until(is_there, what=f"the model {name} is in the cache")
    assert any(each.startswith("GET") for each in file.requests), file.requests


def _cached(world: World) -> list[Path]:
    return [path for path in (world.lab.folder / "cache").rglob("*") if path.is_file()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
