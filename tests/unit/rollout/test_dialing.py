"""Connections that are begun before the SSH library is there: taken once where they stand, closed otherwise."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.rollout.dialing import Dialed
from skep.spec.host import HiveHost, Install, LocalInstall

STANDS_S_MAX = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def host_at(hostname: str, port: int) -> HiveHost:
    return HiveHost(
        alias=hostname, hostname=hostname, ssh_port=port, install=Install(local=LocalInstall(path="x"))
    )


def test_a_connection_that_stands_is_taken_once(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    with Dialed([host_at("127.0.0.1", port)], tmp_path / "none") as dialed:
        accepted, _ = listener.accept()
        taken = dialed.take("127.0.0.1", port)
        assert taken is not None
        with accepted, taken:
            accepted.sendall(b"SSH-2.0-x\r\n")
            taken.settimeout(STANDS_S_MAX)
            assert taken.recv(20) == b"SSH-2.0-x\r\n"
            assert dialed.take("127.0.0.1", port) is None


def test_what_nobody_took_is_closed(listener: socket.socket, tmp_path: Path) -> None:
    with Dialed([host_at("127.0.0.1", listener.getsockname()[1])], tmp_path / "none"):
        accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(STANDS_S_MAX)
        assert accepted.recv(1) == b""


def test_a_refused_connection_is_not_handed_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Dialed([host_at("127.0.0.1", port)], tmp_path / "none") as dialed:
        assert dialed.take("127.0.0.1", port) is None


def test_a_user_configuration_that_may_lead_elsewhere_is_left_to_the_library(
    listener: socket.socket, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("Host 127.0.0.1\n  HostName 127.0.0.2\n")
    port = listener.getsockname()[1]
    with Dialed([host_at("127.0.0.1", port)], config) as dialed:
        assert dialed.take("127.0.0.1", port) is None
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    "hostname", ["gpu-1.example.org", "", "127.0.0.256", "fe80::1%no-such-link", "-oProxy"]
)
def test_what_is_no_numeric_address_is_left_to_the_library(hostname: str, tmp_path: Path) -> None:
    with Dialed([host_at(hostname, 22)], tmp_path / "none") as dialed:
        assert dialed.take(hostname, 22) is None


def test_two_hives_of_one_address_share_no_connection(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    with Dialed([host_at("127.0.0.1", port)] * 2, tmp_path / "none") as dialed:
        accepted, _ = listener.accept()
        first, second = dialed.take("127.0.0.1", port), dialed.take("127.0.0.1", port)
        assert first is not None
        with accepted, first:
            assert second is None


def test_nothing_of_the_ssh_library_is_read_before_the_hosts_are_dialed() -> None:
    ask = "import sys, skep.cli.main, skep.cli.rollout; print([m for m in sys.modules if m in ('asyncssh', 'cryptography')])"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
