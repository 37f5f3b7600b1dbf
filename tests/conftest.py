"""What every test of this project shares: skips that say why, and a real etcd where it is installed."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import hypothesis
import pytest

# A loaded machine is no failure: no property is timed.
hypothesis.settings.register_profile("skep", deadline=None)
hypothesis.settings.load_profile("skep")

# A shell that starts a suite in the background has it ignore Ctrl-C, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "pytester" in getattr(item, "fixturenames", ()):
            item.add_marker("nested")
    if importlib.util.find_spec("xllamacpp") is not None or importlib.util.find_spec("llama_cpp") is not None:
        return
    reason = pytest.mark.skip(reason="no llama.cpp library: install skep with its default dependencies")
    for item in items:
        if item.get_closest_marker("llama"):
            item.add_marker(reason)


ETCD_READY_S_MAX = 40.0


class EtcdCluster:
    """Members as child processes; `urls` are what a client needs."""

    def __init__(self, folder: Path, members: int = 1) -> None:
        if shutil.which("etcd") is None:
            pytest.skip("no etcd here: apt-get install etcd-server")
        ports = _free_ports(members * 2)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:members]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        cluster = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        self._argvs = [
            [
                "etcd", "--name", f"m{n}", "--data-dir", str(folder / f"m{n}"), "--logger", "zap",
                "--log-level", "error", "--unsafe-no-fsync", "--heartbeat-interval", "100",
                "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster,
            ]
            for n, (client, peer) in enumerate(zip(self.urls, peers, strict=True))
        ]  # fmt: skip
        self._folder = folder
        self.children: list[subprocess.Popen | None] = [None] * members

    def start(self, member: int) -> None:
        with (self._folder / f"m{member}.log").open("ab") as log:
            self.children[member] = subprocess.Popen(
                self._argvs[member], stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, member: int) -> None:
        child, self.children[member] = self.children[member], None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)

    def wait(self) -> None:
        """Until a write through every running member succeeds."""
        until = time.monotonic() + ETCD_READY_S_MAX
        for url, child in zip(self.urls, self.children, strict=True):
            while child is not None and not _writes(url):
                if time.monotonic() > until or child.poll() is not None:
                    raise RuntimeError("etcd did not start")
                time.sleep(0.05)

    def leader(self) -> int:
        """The member that leads."""
        for number, url in enumerate(self.urls):
            if self.children[number] is None:
                continue
            with urlopen(Request(f"{url}/v3/maintenance/status", data=b"{}"), timeout=5) as answer:
                told = json.load(answer)
            if told["leader"] == told["header"]["member_id"]:
                return number
        raise RuntimeError("no leader")


@pytest.fixture(scope="module")
def module_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One real etcd member for all tests of a module."""
    with _etcd_clusters(tmp_path_factory) as start:
        yield start()


@pytest.fixture
def start_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., EtcdCluster]]:
    """Start real etcd clusters of any number of members; they end with the test."""
    with _etcd_clusters(tmp_path_factory) as start:
        yield start


@contextlib.contextmanager
def _etcd_clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., EtcdCluster]]:
    made: list[EtcdCluster] = []

    def start(members: int = 1) -> EtcdCluster:
        cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"), members)
        made.append(cluster)
        for member in range(members):
            cluster.start(member)
        cluster.wait()
        return cluster

    try:
        yield start
    finally:
        for cluster in made:
            for member in range(len(cluster.children)):
                cluster.kill(member)


def _writes(url: str) -> bool:
    try:
        with urlopen(Request(f"{url}/v3/kv/put", data=b'{"key":"cHJvYmU="}'), timeout=2) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        return ports
