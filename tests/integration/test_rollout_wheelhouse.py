"""Wheels gathered on the controller for hosts of other kinds: from an index of files, by real pip, onto hosts that only claim to be others."""

import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from skep.rollout.plan import PYTHONS
from skep.rollout.report import HostOutcome, HostReport
from skep.rollout.wheelhouse import this_machine
from skep.spec.host import GitInstall, Install, LocalInstall
from skep.testkit.hosts.loopback import LoopbackHost, LoopbackLab
from skep.testkit.rollout import RolloutHarness, assert_hive_installed
from skep.testkit.sources import make_repository

MACHINE = platform.machine()
OTHER = "aarch64" if MACHINE == "x86_64" else "x86_64"
OLD_GLIBC = "glibc 2.20"
MINE = this_machine()
TREE = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="no git here"),
    pytest.mark.skipif(MINE is None or MINE.libc != "glibc", reason="the hosts claim to have another glibc"),
]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows here."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[LoopbackLab]:
    async with LoopbackLab(tmp_path / "lab", hosts=3) as lab:
        for host in lab.hosts:
            claims(host)
        yield lab


def claims(host: LoopbackHost, **says: str) -> None:
    """Have the host's programs say something else than they would; its interpreter is the tests' own."""
    tools = host.home.parent / f"tools-{host.alias}"
    tools.mkdir(exist_ok=True)
    for program, text in says.items():
        (tools / program).write_text(f"#!/bin/sh\necho {text}\n")
        (tools / program).chmod(stat.S_IRWXU)
    python = Path(sys.executable).resolve().parent
    host.environment["PATH"] = f"{tools}:{python}:/usr/local/bin:/usr/bin:/bin"


def add(index: Path, name: str, version: str = "1.0", tag: str = "py3-none-any") -> None:
    """Put a wheel that holds nothing into the index."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(index / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def compiled(platforms: str) -> str:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{python}-{python}-{platforms}"


def by_git(folder: Path, **made: object) -> Install:
    return Install(
        git=GitInstall(repo=make_repository(folder / "repo", **made), ref="v1.0"),  # type: ignore[arg-type]
        via="controller",
    )


def by_checkout(folder: Path) -> Install:
    """Declare what is committed of the tree that is tested."""
    subprocess.run(["git", "clone", "-q", "--bare", str(TREE), str(folder / "skep.git")], check=True)
    return Install(git=GitInstall(repo=(folder / "skep.git").as_uri(), ref="HEAD"), via="controller")


async def synced(
    lab: LoopbackLab, folder: Path, install: Install, *, hosts: int = 1, dry_run: bool = False
) -> list[HostReport]:
    harness = RolloutHarness(lab, folder)
    declared = [host.hive(install, auto_start=False) for host in lab.hosts[:hosts]]
    return list((await harness.sync(declared, dry_run=dry_run)).hives)


async def gathered(lab: LoopbackLab, folder: Path, install: Install, *, hosts: int = 1) -> list[HostReport]:
    """Gather what would be sent, and send nothing: to fill a host's version takes seconds."""
    return await synced(lab, folder, install, hosts=hosts, dry_run=True)


def houses(folder: Path) -> dict[str, set[str]]:
    """Return what each tar that was made to be sent holds."""
    found = {}
    for path in sorted((folder / "cache").glob("*.tar")):
        with tarfile.open(path) as tar:
            found[path.name] = set(tar.getnames())
    return found


def has(host: LoopbackHost, what: str) -> bool:
    return any(host.home.glob(f".local/share/skep/versions/*/venv/lib/python*/site-packages/{what}"))


async def test_a_host_with_an_older_c_library_gets_wheels_that_it_can_load_and_then_nothing_is_built_again(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    add(index, "compiled", "2.0", compiled(f"manylinux_2_30_{MACHINE}"))
    add(index, "compiled", "1.0", compiled(f"manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}"))
    claims(lab.hosts[0], getconf=OLD_GLIBC)
    install = by_git(tmp_path, requires=["compiled"])
    (row,) = await synced(lab, tmp_path, install)
    assert row.status is HostOutcome.INSTALLED, row
    assert has(lab.hosts[0], "compiled-1.0.dist-info"), "2.0 wants a newer C library"
    shutil.rmtree(tmp_path / "cache")
    (row,) = await synced(lab, tmp_path, install)
    assert row.status is HostOutcome.ALREADY, row
    harness, host = RolloutHarness(lab, tmp_path), lab.hosts[0].hive(install, auto_start=False)
    assert (await harness.status([host])).status == "ok"
    assert not (tmp_path / "cache").exists(), "neither a sync nor a status builds what the host has"
    await assert_hive_installed(harness, host)


async def test_each_platform_is_gathered_for_once_with_what_its_own_markers_ask_for(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    for name in ("only-there", "only-here", "backport"):
        add(index, name.replace("-", "_"))
    for machine in (MACHINE, OTHER):
        add(index, "compiled", "1.0", compiled(f"manylinux_2_17_{machine}"))
    add(index, "compiled", "1.0", f"cp312-abi3-manylinux_2_17_{OTHER}")
    for host in lab.hosts[:2]:
        claims(host, uname=f"Linux {OTHER}", getconf=OLD_GLIBC)
    install = by_git(
        tmp_path,
        requires=[
            "compiled",
            f"only-there; platform_machine == '{OTHER}'",
            f"only-here; platform_machine == '{MACHINE}'",
            "backport; python_version < '3.11'",
        ],
    )
    rows = await gathered(lab, tmp_path, install, hosts=3)
    assert {row.status for row in rows} == {HostOutcome.PLANNED}, rows
    skep = "skep-1.0-py3-none-any.whl"
    assert sorted(houses(tmp_path).values(), key=sorted) == sorted(
        [
            {
                skep,
                "only_here-1.0-py3-none-any.whl",
                f"compiled-1.0-{compiled(f'manylinux_2_17_{MACHINE}')}.whl",
            },
            {
                skep,
                "only_there-1.0-py3-none-any.whl",
                f"compiled-1.0-{compiled(f'manylinux_2_17_{OTHER}')}.whl",
            },
        ],
        key=sorted,
    )
    sent = [next(step.detail for step in row.steps if step.name == "send") for row in rows]
    assert sent[0] == sent[1] != sent[2]
    assert len(list((tmp_path / "cache").glob("*-wheel/*.whl"))) == 1, "skep itself was built once"


async def test_a_package_without_a_wheel_for_a_host_is_named_and_other_hosts_go_on(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    add(index, "compiled", "1.0", compiled(f"manylinux_2_17_{MACHINE}"))
    claims(lab.hosts[0], uname=f"Linux {OTHER}")
    install = by_git(tmp_path, requires=["compiled>=1.0"])
    rows = await gathered(lab, tmp_path, install, hosts=2)
    assert [row.status for row in rows] == [HostOutcome.FAILED, HostOutcome.PLANNED], rows
    assert rows[0].error_code == "no_wheel_fits"
    for text in ("compiled>=1.0", f"Linux {OTHER}", "install.local.path"):
        assert text in rows[0].error


async def test_an_index_that_is_not_reached_is_no_missing_wheel(
    lab: LoopbackLab, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    claims(lab.hosts[0], uname=f"Linux {OTHER}")
    (row,) = await gathered(lab, tmp_path, by_git(tmp_path, requires=["compiled"]))
    assert row.error_code == "build_failed", row
    assert "Connection refused" in row.error


async def test_a_skep_that_is_not_pure_python_is_not_taken_for_another_platforms(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    claims(lab.hosts[0], getconf=OLD_GLIBC)
    install = by_git(tmp_path, tag=compiled(f"linux_{MACHINE}"))
    rows = await gathered(lab, tmp_path, install, hosts=2)
    assert [row.error_code for row in rows] == ["no_wheel_fits", ""], rows
    assert f"skep-1.0-{compiled(f'linux_{MACHINE}')}.whl" in rows[0].error


async def test_what_has_only_a_source_is_built_for_hosts_of_the_controllers_kind(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_repository(source)
    text = (
        (source / "backend.py")
        .read_text()
        .replace("skep-", "sourced-")
        .replace("Name: skep", "Name: sourced")
    )
    (source / "backend.py").write_text(
        text.split('wheel.writestr(f"{info}/entry_points')[0]
        + '\n        wheel.writestr(f"{info}/RECORD", "")\n    return name\n'
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: sourced\nVersion: 2.0\n")
    with tarfile.open(index / "sourced-2.0.tar.gz", "w:gz") as tar:
        for name in ("PKG-INFO", "pyproject.toml", "backend.py"):
            tar.add(source / name, f"sourced-2.0/{name}")
    claims(lab.hosts[0], uname=f"Linux {OTHER}")
    rows = await gathered(lab, tmp_path, by_git(tmp_path, requires=["sourced"]), hosts=2)
    assert [row.error_code for row in rows] == ["no_wheel_fits", ""], rows
    assert list(houses(tmp_path).values()) == [{"skep-1.0-py3-none-any.whl", "sourced-2.0-py3-none-any.whl"}]


async def test_a_wheel_of_ours_is_sent_with_all_that_it_needs(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    add(index, "needed")
    made = tmp_path / "made"
    make_repository(tmp_path / "repo", requires=["needed"])
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(made))
    subprocess.run([*pip, str(tmp_path / "repo")], check=True)
    wheel = next(made.glob("skep-2.0*.whl"))
    install = Install(local=LocalInstall(path=str(wheel)), via="controller")
    (row,) = await gathered(lab, tmp_path, install)
    assert row.status is HostOutcome.PLANNED, row
    assert list(houses(tmp_path).values()) == [{"skep-2.0-py3-none-any.whl", "needed-1.0-py3-none-any.whl"}]


async def test_a_host_of_no_kind_is_told_before_anything_is_built(
    lab: LoopbackLab, index: Path, tmp_path: Path
) -> None:
    claims(lab.hosts[0], uname="FreeBSD amd64")
    (row,) = await synced(lab, tmp_path, by_git(tmp_path))
    assert row.error_code == "impossible_here"
    assert "there are no wheels for FreeBSD" in row.error
    assert not (tmp_path / "cache").exists()


def another_python() -> str:
    """Return an interpreter of another version than the tests' own, "" for none."""
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in (one for one in PYTHONS if one != mine):
        program = shutil.which(f"python{version}")
        if (
            program
            and subprocess.run(
                [program, "-c", "import ensurepip"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return program
    return ""


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_skep_itself_runs_on_a_host_with_another_python_that_asks_no_index(
    lab: LoopbackLab, tmp_path: Path
) -> None:
    """The real thing: some sixty packages from the user's own index, for an interpreter that is not the controller's."""
    python = another_python()
    if not python:
        pytest.skip("no other Python here: put a python3.11, 3.12, 3.13 or 3.14 on PATH")
    install = by_checkout(tmp_path)
    host = lab.hosts[0]
    host.environment |= {
        "PATH": f"{Path(python).parent}:/usr/bin:/bin",
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
    }
    (row,) = await synced(lab, tmp_path, install)
    assert row.status is HostOutcome.INSTALLED, row
    claims(host, uname=f"Linux {OTHER}", getconf="glibc 2.31")
    shutil.rmtree(host.home / ".local")
    (row,) = await gathered(lab, tmp_path, install)
    assert row.status is HostOutcome.PLANNED, row
    tags = {
        name.removesuffix(".whl").rsplit("-", 1)[-1] for house in houses(tmp_path).values() for name in house
    }
    assert any(OTHER in tag for tag in tags)
