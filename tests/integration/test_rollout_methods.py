"""The ways to install: a repository cloned and built on the host, a release fetched by it, and both sent from here."""

import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
import pytest

from skep.rollout.report import HostOutcome, HostReport
from skep.spec.host import GitInstall, Install, ReleaseInstall
from skep.testkit.fleet.hub import FakeHub, HubFault
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.hosts.netns import NetnsLab, missing
from skep.testkit.rollout import RolloutHarness, assert_hive_installed
from skep.testkit.sources import make_repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")

PROGRAM = b"#!/bin/sh\necho skep 9.0\nexit\n" + b"#" * 100_000


@pytest.fixture
def repo(tmp_path: Path) -> str:
    return make_repository(tmp_path / "a repo's folder")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[LoopbackLab]:
    async with LoopbackLab(tmp_path / "lab") as lab:
        # The tests' own interpreter, by its real path, so that no shim is asked what it is.
        python = Path(sys.executable).resolve().parent
        lab.hosts[0].environment["PATH"] = f"{python}:/usr/local/bin:/usr/bin:/bin"
        yield lab


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    yield hub
    hub.close()


def of_git(repo: str, ref: str, via: str = "host") -> Install:
    return Install(git=GitInstall(repo=repo, ref=ref), via=via)  # type: ignore[arg-type]


def of_release(hub: FakeHub, via: str = "host") -> Install:
    hub.add("skep", PROGRAM)
    return Install(release=ReleaseInstall(url=f"{hub.url}/skep", sha256=hub.files["skep"].sha256), via=via)  # type: ignore[arg-type]


async def synced(lab: LoopbackLab | NetnsLab, folder: Path, install: Install) -> HostReport:
    harness = RolloutHarness(lab, folder)
    host = lab.hosts[0].hive(install, auto_start=False)
    row = (await harness.sync([host])).hives[0]
    if not row.error:
        await assert_hive_installed(harness, host)
    return row


def said(lab: LoopbackLab | NetnsLab) -> str:
    """Return what the host's skep says to `--version`."""
    link = lab.hosts[0].home / ".local/bin/skep"
    return subprocess.run([link, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def names(row: HostReport) -> list[str]:
    return [step.name for step in row.steps]


async def test_a_repository_is_cloned_and_built_upgraded_by_tag_and_downgraded(
    lab: LoopbackLab, repo: str, tmp_path: Path
) -> None:
    first = await synced(lab, tmp_path, of_git(repo, "v1.0"))
    assert (first.status, names(first)[:3]) == (HostOutcome.INSTALLED, ["clone", "build", "verify"]), first
    assert said(lab) == "skep 1.0"
    assert (await synced(lab, tmp_path, of_git(repo, "main"))).status is HostOutcome.UPGRADED
    assert said(lab) == "skep 2.0"
    assert (await synced(lab, tmp_path, of_git(repo, "v2.0"))).status is HostOutcome.ALREADY, (
        "the same commit"
    )
    down = await synced(lab, tmp_path, of_git(repo, "v1.0"))
    assert down.status is HostOutcome.UPGRADED
    assert "build" not in names(down), "it is there still"
    assert said(lab) == "skep 1.0"


async def test_a_build_that_fails_shows_its_end_and_a_missing_ref_says_what_there_is(
    lab: LoopbackLab, repo: str, tmp_path: Path
) -> None:
    broken = await synced(lab, tmp_path, of_git(repo, "broken"))
    assert (broken.status, names(broken)[-1]) == (HostOutcome.FAILED, "build")
    assert "compile error at line 7" in broken.error
    nothing = await synced(lab, tmp_path, of_git(repo, "v9"))
    assert nothing.error_code == "bad_reference"
    nowhere = await synced(lab, tmp_path, of_git((tmp_path / "nowhere").as_uri(), "v1.0"))
    assert nowhere.error_code == "bad_reference"
    assert not (lab.hosts[0].home / ".local/bin/skep").exists()


async def test_a_wheel_built_here_is_sent_to_a_host_that_asks_no_network(
    lab: LoopbackLab, repo: str, tmp_path: Path
) -> None:
    heard: list[bytes] = []
    lab.hosts[0].on_input = heard.append
    row = await synced(lab, tmp_path, of_git(repo, "v2.0", via="controller"))
    assert row.status is HostOutcome.INSTALLED, row
    assert names(row)[:3] == ["bring", "send", "stage"]
    assert said(lab) == "skep 2.0"
    scripts = b"".join(heard)
    assert b"pip install" in scripts
    assert b"git init" not in scripts


async def test_a_release_is_fetched_by_the_host_and_taken_up_where_it_was_cut(
    lab: LoopbackLab, hub: FakeHub, tmp_path: Path
) -> None:
    install = of_release(hub)
    hub.files["skep"].faults.append(HubFault("truncated", times=1))
    cut = await synced(lab, tmp_path, install)
    assert (cut.status, names(cut)[-1]) == (HostOutcome.FAILED, "download"), cut
    assert (await synced(lab, tmp_path, install)).status is HostOutcome.INSTALLED
    assert said(lab) == "skep 9.0"
    assert any("bytes=" in asked for asked in hub.files["skep"].requests), "it was resumed"


async def test_a_release_with_another_checksum_is_never_staged(
    lab: LoopbackLab, hub: FakeHub, tmp_path: Path
) -> None:
    install = of_release(hub)
    hub.files["skep"].faults.append(HubFault("wrong_bytes", times=9))
    row = await synced(lab, tmp_path, install)
    assert (row.status, names(row)[-1]) == (HostOutcome.FAILED, "download")
    assert "checksum wrong" in row.error
    here = await synced(lab, tmp_path, msgspec.structs.replace(install, via="controller"))
    assert here.error_code == "checksum_mismatch", here


async def test_a_host_without_a_python_gets_one_by_uv(lab: LoopbackLab, repo: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    real = subprocess.run(
        ["sh", "-c", "command -v git"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            if not program.name.startswith(("python", "pip")) and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    if not (tools / "git").exists():
        (tools / "git").symlink_to(real)
    (tools / "uv").write_text(
        f'#!/bin/sh\n# uv venv -q --seed --python 3.12 FOLDER\n[ "$1 $3 $4" = "venv --seed --python" ] || exit 64\nexec {sys.executable} -m venv "$6"\n'
    )
    (tools / "uv").chmod(stat.S_IRWXU)
    lab.hosts[0].environment["PATH"] = str(tools)
    row = await synced(lab, tmp_path, of_git(repo, "v1.0"))
    assert row.status is HostOutcome.INSTALLED, row
    assert said(lab) == "skep 1.0"


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
async def test_a_host_that_reaches_nobody_gets_a_release_through_the_controller(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with NetnsLab(tmp_path / "net", hosts=1) as net:
        alone = await synced(net, tmp_path, of_release(hub))
        assert (alone.status, names(alone)[-1]) == (HostOutcome.FAILED, "download"), (
            "nobody listens on its loopback"
        )
        sent = await synced(net, tmp_path, of_release(hub, via="controller"))
        assert (sent.status, names(sent)[:3]) == (HostOutcome.INSTALLED, ["bring", "send", "stage"]), sent
        assert said(net) == "skep 9.0"
