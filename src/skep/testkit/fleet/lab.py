"""A place for hives and queens of one test: configuration, folders, a mark; empty again at its end."""

import http.client
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skep.process import group
from skep.process.guard import Guard
from skep.runtime.models import TINY
from skep.testkit.fleet.daemon import MARK, Daemon, end_all
from skep.testkit.fleet.hub import FakeHub
from skep.testkit.waiting import patient_s

GIB = 1 << 30
DEVICE_BYTES = 24 * GIB
DEFAULT_MODEL = "llama-3.1-8b-instruct"
DOWNLOAD_S = 0.4
"""How long the hub takes for a model, so that provisioning can be seen."""


class Lab:
    """Collects a configuration, starts daemons from it, and ends whatever carries its mark."""

    def __init__(
        self,
        folder: Path,
        *,
        logs: Path,
        hub: FakeHub,
        guard: Guard | None = None,
        backend: str = "fake",
        has_real_devices: bool = False,
    ) -> None:
        self.folder, self.logs, self.hub, self.guard = folder, logs, hub, guard
        self.backend, self.has_real_devices = backend, has_real_devices
        self.mark = secrets.token_hex(8)
        if guard is not None:
            guard.mark(MARK, self.mark)  # Orphans of a hive that a scenario killed are nobody's children.
        self.runtime = folder / "run"
        self.settings: dict[str, Any] = {
            "bind": "127.0.0.1:0",
            "runtime_dir": str(self.runtime),
            "node_id": "node-0",
            "probe_interval_s": 0.2,
            "discover_interval_s": 0.3,
        }
        self.restarts: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self.provisioning: dict[str, Any] = {"cache_dir": str(folder / "cache")}
        self.models: dict[str, str] = {}
        self.engines: list[dict[str, Any]] = []
        self.pools: list[dict[str, Any]] = []
        self.connections: list[http.client.HTTPConnection] = []
        self.devices: list[dict[str, Any]] = []
        self.daemons: list[Daemon] = []
        for index in () if has_real_devices else range(2):
            self.add_device(index, DEVICE_BYTES)

    @property
    def mask(self) -> str:
        """The device mask of pools that do not care: a real backend cannot run on a fake device."""
        if self.has_real_devices:
            return "auto"
        return "0" if self.backend == "fake" else "cpu"

    def add_device(self, index: int, memory_bytes: int, **facts: Any) -> None:
        """Declare a fake device, in place of one with the same index."""
        self.devices = [one for one in self.devices if one["index"] != index]
        self.devices.append({"index": index, "memory_total_bytes": memory_bytes, **facts})

    def add_model(self, name: str, reference: str = "", *, download_s: float = DOWNLOAD_S) -> None:
        """Make a model known by name; without a reference it is the tiny one, to be downloaded from the hub."""
        self.models[name] = reference or self.hub.add(f"{name}.gguf", TINY, delay_s=download_s)

    def start_hive(self, **settings: Any) -> Daemon:
        """Start a hive from what was collected."""
        self.settings.update(settings)
        if DEFAULT_MODEL not in self.models:
            self.add_model(DEFAULT_MODEL)
        path = self.folder / "skep.toml"
        path.write_text(self._toml(), encoding="utf-8")
        return self._start("hive", ["hive", "--config", str(path)], {"SKEP_LOG_LEVEL": "debug", **self.env})

    def start_queen(self, **settings: Any) -> Daemon:
        """Start a queen with a store of its own."""
        values = {
            "bind": "127.0.0.1:0",
            "admin_bind": "127.0.0.1:0",
            "store": f"sqlite:{self.folder / 'queen.db'}",
            **settings,
        }
        path = self.folder / "queen.toml"
        path.write_text("[queen]\n" + _pairs(values), encoding="utf-8")
        return self._start("queen", ["queen", "--config", str(path)], {})

    def handoffs(self) -> dict[str, dict[str, Any]]:
        """The handoff files that are there, by name."""
        found = {}
        for path in (self.runtime / "engines").glob("*.json"):
            try:
                found[path.name] = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):
                continue
        return found

    def worker_pids(self) -> list[int]:
        """Every process of this lab that is no daemon of ours."""
        known = {each.process.pid for each in self.daemons}
        return [each.pid for each in group.marked(MARK, self.mark) if each.pid not in known]

    def until(self, condition: Callable[[], Any], *, what: str, within_s: float = 30.0) -> Any:
        """Wait for something of the lab. Raises: AssertionError with the logs' tails."""
        within_s = patient_s(within_s)
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s\n{self.log_tails()}"
            time.sleep(0.03)
        return found

    def log_tails(self) -> str:
        """The last lines of every daemon's log."""
        return "\n".join(f"--- {each.name}\n{each.log_tail(12)}" for each in self.daemons)

    def close(self) -> None:
        """End every daemon, then whatever else carries the mark."""
        for connection in self.connections:
            connection.close()
        for daemon in reversed(self.daemons):
            if daemon.is_running:
                daemon.process.terminate()
        deadline = time.monotonic() + 6
        for daemon in self.daemons:
            while daemon.is_running and time.monotonic() < deadline:
                time.sleep(0.02)
            daemon.kill()
        end_all(self.mark)

    def _start(self, kind: str, argv: list[str], env: dict[str, str]) -> Daemon:
        number = sum(each.name.startswith(kind) for each in self.daemons)
        name = f"{kind}-{number}" if number else kind
        home = {"SKEP_HOME": str(self.folder / "home"), **env}
        daemon = Daemon.start(
            name, argv, log=self.logs / f"{name}.log", mark=self.mark, guard=self.guard, env=home
        )
        self.daemons.append(daemon)
        return daemon

    def _toml(self) -> str:
        parts = []
        for section, values in (
            ("hive_daemon", self.settings),
            ("restarts", self.restarts),
            ("provisioning", self.provisioning),
        ):
            parts += [f"[{section}]", _pairs(values)]
        for name, reference in self.models.items():
            parts += ["[[model]]", _pairs({"name": name, "ref": reference})]
        for engine in self.engines:
            parts += ["[[engine]]", _pairs(engine)]
        for pool in self.pools:
            parts += ["[[pool]]", _pairs(pool)]
        for device in self.devices:
            parts += ["[[fake_device]]", _pairs(device)]
        return "\n".join(parts)


def _pairs(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
