"""Real hives as processes, each with folders and a mark of its own; whatever a test leaves running is a failure."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from skep.hive.core import Core
from skep.hive.daemon import running
from skep.hive.settings import HiveSettings
from skep.policy.backoff import BackoffLimits
from skep.policy.restart import RestartLimits
from skep.policy.storm import StormLimits
from skep.process import group
from skep.process.socket import bind_listener

MARK = "SKEP_HIVE_TEST_MARK"
READY_S = 40.0


class HiveProcess:
    """One run of `skep hive`."""

    def __init__(self, config: Path, mark: str, number: int, env: dict[str, str]) -> None:
        self.config, self.mark = config, mark
        self.log = config.with_name(f"hive-{number}.log")
        read, write = os.pipe()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "skep.cli.main",
                    "hive",
                    "--config",
                    str(config),
                    "--report-fd",
                    str(write),
                ],
                env={
                    **os.environ,
                    "LC_" + MARK: mark,
                    "SKEP_LOG_LEVEL": "debug",
                    "SKEP_HOME": str(config.with_name("home")),
                    **env,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write],
                start_new_session=True,
            )
        os.close(write)
        self._report = read
        self.url = ""

    def wait_started(self) -> "HiveProcess":
        report, self._report = self._report, -1
        with os.fdopen(report, "rb") as pipe:
            line = pipe.readline()
        assert line, f"the hive did not start:\n{self.log_tail()}"
        self.url = json.loads(line)["url"]
        return self

    def close_report(self) -> None:
        """Let go of the pipe of a hive that nobody waited for."""
        if self._report >= 0:
            os.close(self._report)
            self._report = -1

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, token: str = ""
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                raw, status = reply.read(), reply.status
        except urllib.error.HTTPError as error:
            raw, status = error.read(), error.code
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def pool(self, pool_id: str = "pool-0") -> dict[str, Any]:
        status, found = self.ask(f"/v2/pools/{pool_id}")
        assert status == 200, found
        return found

    def until(
        self,
        condition: Callable[[dict[str, Any]], Any],
        *,
        pool_id: str = "pool-0",
        within_s: float = READY_S,
    ) -> Any:
        deadline = time.monotonic() + within_s
        while True:
            found = self.pool(pool_id)
            if result := condition(found):
                return result
            assert time.monotonic() < deadline, f"{json.dumps(found, indent=1)}\n{self.log_tail()}"
            time.sleep(0.05)

    def until_ready(self, *, pool_id: str = "pool-0", replicas: int | None = None) -> dict[str, Any]:
        def is_ready(pool: dict[str, Any]) -> dict[str, Any] | None:
            up = [one for one in pool["replicas"] if one["state"] == "ready"]
            return (
                pool
                if pool["state"] == "ready" and len(up) == (replicas or pool["replicas_wanted"])
                else None
            )

        return self.until(is_ready, pool_id=pool_id)

    def until_state(self, *states: str, pool_id: str = "pool-0", within_s: float = READY_S) -> dict[str, Any]:
        return self.until(
            lambda pool: pool if pool["state"] in states else None, pool_id=pool_id, within_s=within_s
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self, *, within_s: float = 8.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the hive did not stop within {within_s} s:\n{self.log_tail(80)}")


class Place:
    """Where hives of one test run, one after the other: folders, a mark, a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.runtime = folder / "run"
        self.hives: list[HiveProcess] = []

    def configure(self, pools: str = "", **hive: Any) -> Path:
        settings = {
            "bind": "127.0.0.1:0",
            "runtime_dir": str(self.runtime),
            "node_id": "node-t",
            "probe_interval_s": 0.2,
            "discover_interval_s": 0.2,
            **hive,
        }
        lines = ["[hive_daemon]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
        path = self.folder / "skep.toml"
        path.write_text("\n".join(lines) + "\n" + pools)
        return path

    def start(self, *, wait: bool = True, **env: str) -> HiveProcess:
        hive = HiveProcess(self.folder / "skep.toml", self.mark, len(self.hives), env)
        self.hives.append(hive)
        return hive.wait_started() if wait else hive

    def workers(self) -> list[int]:
        """The processes that any hive of this place left or runs, hives themselves not counted."""
        hives = {one.process.pid for one in self.hives}
        return [one.pid for one in group.marked("LC_" + MARK, self.mark) if one.pid not in hives]

    def handoffs(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in (self.runtime / "engines").glob("*.json"):
            try:
                found[path.name] = json.loads(path.read_text())
            except (ValueError, FileNotFoundError):
                continue  # Not ours, or removed since it was listed: ours are never half-written.
        return found

    def handoffs_of(self, node_id: str) -> dict[str, dict[str, Any]]:
        return {name: one for name, one in self.handoffs().items() if one["node_id"] == node_id}

    def spawns(self) -> list[str]:
        return sorted(path.name for path in (self.runtime / "spawns").glob("*.json"))

    def until(self, condition: Callable[[], Any], *, within_s: float = 15.0) -> Any:
        deadline = time.monotonic() + within_s
        while not (result := condition()):
            assert time.monotonic() < deadline, "\n".join(one.log_tail() for one in self.hives)
            time.sleep(0.02)
        return result


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for hive in place.hives:
        hive.close_report()
        if hive.process.poll() is None:
            hive.process.kill()
            hive.process.wait()
    group.kill_each(group.marked("LC_" + MARK, place.mark))


def fake_pool(pool_id: str = "pool-0", model: str = "fake:demo", **fields: Any) -> str:
    values = {"id": pool_id, "model": model, "backend": "fake", "devices": "cpu", **fields}
    return "[[pool]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.fixture
def pool_toml() -> Callable[..., str]:
    return fake_pool


PATIENT = RestartLimits(
    backoff=BackoffLimits(first_s=0.05, delay_s_max=0.2, delay_s_min=0.01),
    storm=StormLimits(restarts_max=10_000),
)
"""Quick to try again, and without end."""


@pytest.fixture
def hive_here(tmp_path: Path) -> Callable:
    """Return what runs a hive in this process, with folders of its own and settings of the test's."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Core]:
        folder = changes.pop("folder", tmp_path)
        settings = HiveSettings(
            node_id="n",
            host="127.0.0.1",
            port=0,
            runtime=folder / "run",
            state=folder / "state",
            engines_root=folder / "engines",
            models_root=folder / "models",
            **{"probe_interval_s": 0.2, "discover_interval_s": 0.1, "restart": PATIENT, **changes},
        )
        with bind_listener("127.0.0.1") as listener:
            async with running(settings, listener) as daemon:
                yield daemon.core

    return start


@pytest.fixture
def comes_true() -> Callable:
    """Return what waits for a condition, in this process."""

    async def until(condition: Callable[[], object], *, within_s: float = READY_S) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)

    return until
