"""A worker whose engine is compiled on the host by a rollout, from a repository that the host's configuration names."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from skep.rollout.plan import Options
from skep.rollout.report import HostOutcome
from skep.spec.host import Install, LocalInstall, WorkerDecl
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.rollout import RolloutHarness, assert_worker_installed
from skep.testkit.sources import committed

SOURCE = Path(__file__).parents[1] / "engines/echo-server"
lacking = [tool for tool in ("git", "cmake", "make", "c++") if shutil.which(tool) is None]


@pytest.mark.slow  # A compilation; provisioning's own tests have one in each run.
@pytest.mark.skipif(bool(lacking), reason=f"not on PATH: {', '.join(lacking)}")
async def test_an_engine_of_the_hosts_configuration_is_compiled_there_once_and_removed(
    tmp_path: Path,
) -> None:
    repo = tmp_path / "an engine's repository"
    shutil.copytree(SOURCE, repo)
    committed(repo, tag="v1")
    program = tmp_path / "skep"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m skep.cli.main "$@"\n')
    program.chmod(stat.S_IRWXU)
    declared = {
        "install": Install(local=LocalInstall(path=str(program))),
        "auto_start": False,
        "config": '[[engine]]\nid = "echo"\nkind = "llama-server"\nway = "source"\nref = "v1"\nprogram = "echo-server"\n'
        f"repo = {json.dumps(str(repo))}\n",
    }
    async with LoopbackLab(tmp_path / "lab") as lab:
        harness, target = RolloutHarness(lab, tmp_path), lab.hosts[0]
        host = target.hive(**declared, workers=(WorkerDecl(type="echo"),))
        first = await harness.sync([host])
        assert first.hives[0].status is HostOutcome.INSTALLED, first
        assert first.metrics.build_s > 0
        await assert_worker_installed(harness, host, "echo")
        engines = target.home / ".local/share/skep/engines"
        built = [path for path in engines.rglob("echo-server") if path.stat().st_mode & stat.S_IXUSR]
        said = subprocess.run([built[0], "--version"], capture_output=True, text=True, check=True).stdout
        assert said == "echo-server 1.0.0\n"
        assert (await harness.sync([host])).hives[0].status is HostOutcome.ALREADY
        bare = target.hive(**declared)
        assert (await harness.sync([bare], options=Options(remove_extra=True))).is_success
        assert not list(engines.rglob("echo-server"))
