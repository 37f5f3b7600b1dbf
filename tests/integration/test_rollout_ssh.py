"""The level `ssh`: a host that the environment names (TEST_SSH_HOST, _PORT, _USER, _KEY), by hand or in a CI service."""

import os
import stat
from pathlib import Path

import pytest

from skep.rollout.plan import Options
from skep.rollout.report import HostOutcome
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import HiveHost, Install, LocalInstall

HOST = os.environ.get("TEST_SSH_HOST", "")
pytestmark = pytest.mark.skipif(not HOST, reason="TEST_SSH_HOST names no host")


async def test_a_host_of_the_users_own_is_installed_left_alone_and_cleared(tmp_path: Path) -> None:
    program = tmp_path / "skep"
    program.write_text("#!/bin/sh\necho skep 1\n")
    program.chmod(stat.S_IRWXU)
    host = HiveHost(
        alias="user-host",
        hostname=HOST,
        ssh_port=int(os.environ.get("TEST_SSH_PORT", "22")),
        ssh_user=os.environ.get("TEST_SSH_USER", ""),
        identity_file=os.environ.get("TEST_SSH_KEY", ""),
        auto_start=False,
        install=Install(local=LocalInstall(path=str(program))),
    )
    connector = SshConnector(known_hosts=tmp_path / "known_hosts", accept_new=True)
    settings = Settings(base=tmp_path, cache=tmp_path / "cache", options=Options(remove_extra=True))
    try:
        assert (await Sync(connector, settings).run([host])).hives[0].status is HostOutcome.INSTALLED
        assert (await Sync(connector, settings).run([host])).hives[0].status is HostOutcome.ALREADY
    finally:
        await Sync(connector, settings).run([], removed=[host])
