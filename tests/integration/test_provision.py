"""Engines really brought here: a git repository, a CMake build, an archive over HTTP, a package in its environment."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skep.errors.provision import BadReference, BuildFailed, ProgramBroken, UnsafeArchive
from skep.provision.ensure import ensure, list_engines
from skep.provision.model import ensure_model
from skep.provision.progress import Progress
from skep.spec.engine import EngineKind, EngineSpec, EngineWay
from skep.spec.model import parse_ref

SOURCE = Path(__file__).parents[1] / "engines" / "echo-server"
missing = [tool for tool in ("git", "cmake", "make", "c++") if shutil.which(tool) is None]
needs_toolchain = pytest.mark.skipif(bool(missing), reason=f"not on PATH: {', '.join(missing)}")


def git(folder: Path, *argv: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
    }
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", *argv],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **identity},
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "a repo with spaces"
    shutil.copytree(SOURCE, folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "tag", "v1")
    return folder


def source(repo: Path, ref: str = "v1", *, flags: tuple[str, ...] = ()) -> EngineSpec:
    return EngineSpec(
        id="echo",
        kind=EngineKind.LLAMA_SERVER,
        way=EngineWay.SOURCE,
        repo=str(repo),
        ref=ref,
        flags=flags,
        program="echo-server",
    )


@needs_toolchain
async def test_a_source_engine_is_built_once_and_runs_from_its_folder(repo: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    root = tmp_path / "engines"
    first, second = await asyncio.gather(
        ensure(source(repo), root=root, on_progress=told.append),
        ensure(source(repo), root=root, on_progress=told.append),
    )
    assert first == second
    assert first.version == "echo-server 1.0.0"
    assert [step.step for step in told].count("compile") == 1
    assert (
        subprocess.run([first.program, "--version"], check=True, capture_output=True).stdout
        == b"echo-server 1.0.0\n"
    )
    assert [engine.key for engine in list_engines(root)] == [first.key]
    assert not list(root.glob("*/.staging-*"))


@needs_toolchain
async def test_other_flags_and_other_commits_are_other_builds(repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "engines"
    plain = await ensure(source(repo), root=root)
    loud = await ensure(source(repo, flags=("ECHO_SHOUT=ON",)), root=root)
    assert plain.key != loud.key
    assert Path(plain.program).exists()
    assert Path(loud.program).exists()


@needs_toolchain
async def test_a_build_that_fails_tells_its_last_lines_and_publishes_nothing(
    repo: Path, tmp_path: Path
) -> None:
    (repo / "main.cpp").write_text("int main( { this is not C++ }")
    git(repo, "commit", "-q", "-am", "break it")
    with pytest.raises(BuildFailed) as raised:
        await ensure(source(repo, "main"), root=tmp_path / "engines")
    assert "error:" in raised.value.log_tail
    assert list_engines(tmp_path / "engines") == []


@needs_toolchain
async def test_an_interrupted_build_is_finished_by_the_next_run(repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "engines"
    compiling = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.step == "compile":
            compiling.set()

    task = asyncio.create_task(ensure(source(repo), root=root, on_progress=watch))
    await compiling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list_engines(root) == []
    assert (await ensure(source(repo), root=root)).version == "echo-server 1.0.0"


@needs_toolchain
@pytest.mark.parametrize("ref", ["no-such-branch", "v9"])
async def test_a_ref_that_is_not_there_is_told(repo: Path, tmp_path: Path, ref: str) -> None:
    with pytest.raises(BadReference, match=ref):
        await ensure(source(repo, ref), root=tmp_path / "engines")


@needs_toolchain
async def test_a_machine_without_its_network_uses_what_it_built_before(repo: Path, tmp_path: Path) -> None:
    built = await ensure(source(repo), root=tmp_path / "engines")
    shutil.rmtree(repo)
    assert await ensure(source(repo), root=tmp_path / "engines") == built
    with pytest.raises(BadReference):
        await ensure(source(repo, flags=("ECHO_SHOUT=ON",)), root=tmp_path / "engines")


@needs_toolchain
async def test_a_ref_that_only_ends_alike_is_another_branch(repo: Path, tmp_path: Path) -> None:
    git(repo, "branch", "alice/fix")
    with pytest.raises(BadReference, match="alice/fix"):
        await ensure(source(repo, "fix"), root=tmp_path / "engines")


@needs_toolchain
async def test_a_repository_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadReference, match="nowhere"):
        await ensure(source(tmp_path / "nowhere"), root=tmp_path / "engines")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_folder(tmp_path: Path) -> Generator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def archive(folder: Path, *, script: str, member: str = "bundle/bin/tool") -> Path:
    tool = folder / "tool.src"
    tool.write_text(script)
    tool.chmod(0o755)
    path = folder / "tool.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tool, member)
    return path


def binary(path: Path, url: str) -> EngineSpec:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return EngineSpec(
        id="tool",
        kind=EngineKind.LLAMA_SERVER,
        way=EngineWay.BINARY,
        url=f"{url}/{path.name}",
        sha256=digest,
        program="tool",
    )


async def test_a_binary_engine_is_downloaded_unpacked_and_found_inside(web_folder, tmp_path: Path) -> None:
    folder, url = web_folder
    spec = binary(archive(folder, script="#!/bin/sh\necho tool 2.0\n"), url)
    engine = await ensure(spec, root=tmp_path / "engines")
    assert engine.version == "tool 2.0"
    shutil.rmtree(folder)
    folder.mkdir()
    assert await ensure(spec, root=tmp_path / "engines") == engine


async def test_a_program_that_does_not_run_is_not_published(web_folder, tmp_path: Path) -> None:
    folder, url = web_folder
    with pytest.raises(ProgramBroken, match="ended with 3"):
        await ensure(binary(archive(folder, script="#!/bin/sh\nexit 3\n"), url), root=tmp_path / "engines")
    assert list_engines(tmp_path / "engines") == []


async def test_an_archive_that_climbs_out_of_its_folder_is_refused(web_folder, tmp_path: Path) -> None:
    folder, url = web_folder
    spec = binary(archive(folder, script="x", member="../../../escaped/tool"), url)
    with pytest.raises(UnsafeArchive):
        await ensure(spec, root=tmp_path / "engines")
    assert not (tmp_path / "escaped").exists()


async def test_a_package_engine_lives_in_its_own_environment(tmp_path: Path) -> None:
    project = tmp_path / "pkg"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "tiny-engine"\nversion = "1.2"\n'
    )
    (project / "backend.py").write_text(WHEEL_BACKEND)
    spec = EngineSpec(
        id="pkg",
        kind=EngineKind.VLLM,
        way=EngineWay.PACKAGE,
        package=f"tiny-engine @ file://{project}",
        program="tiny-engine",
    )
    engine = await ensure(spec, root=tmp_path / "engines")
    assert engine.version == "tiny-engine 1.2"
    assert await ensure(spec, root=tmp_path / "engines") == engine


WHEEL_BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tiny_engine-1.2-py3-none-any.whl"
    info = "tiny_engine-1.2.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny_engine.py", "def main():\\n    print('tiny-engine 1.2')\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny-engine\\nVersion: 1.2\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\ntiny-engine = tiny_engine:main\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


async def test_a_model_comes_from_https_by_its_checksum(web_folder, tmp_path: Path) -> None:
    folder, url = web_folder
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(1000))
    digest = hashlib.sha256((folder / "m.gguf").read_bytes()).hexdigest()
    path = await ensure_model(parse_ref(f"{url}/m.gguf#sha256={digest}"), root=tmp_path / "models")
    assert path.name == "m.gguf"
    assert path.read_bytes() == (folder / "m.gguf").read_bytes()
