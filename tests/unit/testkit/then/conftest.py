"""A scripted world to lie in: answers over real HTTP, handoff files on disk, and steps called as features call them."""

import asyncio
import http.server
import importlib
import inspect
import json
import os
import pkgutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry

import skep.testkit.steps as library
from skep.process.identity import started_at
from skep.testkit.fleet.hub import HubFile
from skep.testkit.fleet.lab import Lab
from skep.testkit.waiting import PATIENCE
from skep.testkit.world import World

POOL = "pool-0"


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves a table of answers; what is not in it is 404."""

    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        status, body = self.server.answers.get(
            self.path.split("?")[0], (404, {"error": {"code": "not_found"}})
        )
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - the names that the server looks for


class ScriptedLab(Lab):
    """A lab whose workers are what the script says."""

    def __init__(self, folder: Path, pids: list[int]) -> None:
        super().__init__(folder, logs=folder, hub=SimpleNamespace(files={}))
        self.pids = pids

    def worker_pids(self) -> list[int]:
        return list(self.pids)


class Scene:
    """A world in which every claim of the library holds, until a test makes it lie."""

    def __init__(self, url: str, answers: dict[str, tuple[int, Any]], folder: Path) -> None:
        self.url, self.answers, self.folder = url, answers, folder
        self.me = os.getpid()
        self.lab = ScriptedLab(folder, [self.me])
        self.world = World(lab=self.lab, hive_url=url, marks={POOL: 0})
        log = folder / "daemon.log"
        log.write_text("")
        daemon = SimpleNamespace(
            url=url, log=log, report={"gateway": url, "admin": url}, name="d", log_tail=str
        )
        self.world.hive = self.world.queen = daemon  # type: ignore[assignment]
        self.replica = {
            "replica_id": "r0", "state": "ready", "pid": self.me, "instance": "n-1", "restart_count": 1, "model": "m",
            "breaker": "closed",
        }  # fmt: skip
        self.pool = {
            "state": "ready", "ready": True, "replicas": [self.replica], "replicas_wanted": 1, "last_error": None,
            "fit": "weights, KV cache, headroom on FAKE-0", "progress": 1.0, "retry_at_s": None, "model": "m",
            "last_drain": {"jobs_cancelled": 0, "force_stopped": False, "duration_ms": 1},
            "last_reload": {"outcome": "reloaded"}, "device_mask": ["FAKE-0"],
        }  # fmt: skip
        self.events = [
            _event(1, "pool", state="provisioning"), _event(2, "replica", event="spawned"),
            _event(3, "progress", progress=0.5), _event(4, "replica", event="proved"), _event(5, "pool", state="ready"),
        ]  # fmt: skip
        self.verdicts = [
            {
                "reason": "exit_code",
                "delay_s": 1.0 * 2**number,
                "because": "so",
                "is_storm": False,
                "breaker": "closed",
            }
            for number in range(3)
        ]
        self.devices = [
            {"id": f"FAKE-{index}", "kind": "fake", "index": index, "memory_total_bytes": 8, "memory_used_bytes": 2,
             "memory_free_bytes": 6}
            for index in range(2)
        ]  # fmt: skip
        self.metrics = ['skep_x{node_id="n",pool_id="pool-0",outcome="ready",device_id="FAKE-0"} 1']
        self.logged = {
            "event": "pool_event", "pool_id": POOL, "kind": "pool", "transition": "proved", "state": "ready", "engine": "e", "engine_version": "1", "device_mask": "d", "model": "m",
            "node_id": "n", "instance": "i", "level": "info", "at": 1,
        }  # fmt: skip
        self.world.seen |= {
            "victim": {**self.replica, "pid": 1, "instance": "n-0", "restart_count": 0},
            "before": {self.me: dict(self.replica)},
            "devices": self.devices,
        }
        self.answers["/v1/models"] = (200, {"data": [{"id": "m"}]})
        self.answers["/v2/state"] = (200, {"registered": True})
        self.answers["/v2/nodes"] = (200, {"nodes": [{"node_id": "gpu-1", "state": "alive"}]})
        self.answers["/v2/pools"] = (200, [{"pool_id": POOL, "node_id": "gpu-1", "state": "ready"}])
        self.answers["/health"] = (200, {"device_mask": ["FAKE-0"]})
        self.answers["/ready"] = (200, {"ready": True, "waiting": {}})
        self.tell()
        self.handoff()

    def tell(self) -> None:
        """Put what the scene holds where it is asked for."""
        self.answers[f"/v2/pools/{POOL}"] = (200, self.pool)
        self.answers[f"/v2/pools/{POOL}/why"] = (
            200,
            {"verdicts": [{"replica_id": "r0", "verdict": each} for each in self.verdicts]},
        )
        lines = "".join(f"data: {json.dumps(each)}\n\n" for each in self.events)
        self.answers[f"/v2/pools/{POOL}/events"] = (200, lines)
        self.answers["/v2/devices"] = (200, {"devices": self.devices})
        self.answers["/metrics"] = (200, "\n".join(self.metrics))
        assert self.world.hive is not None
        self.world.hive.log.write_text(json.dumps(self.logged) + "\n")

    def handoff(self, replica: str = "r0", *, mode: int = 0o600, **changes: Any) -> None:
        """Write a replica's handoff file."""
        path = self.lab.runtime / "engines" / f"{POOL}-{replica}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {
            "version": 1, "pool_id": POOL, "replica_id": replica, "engine": "skep", "engine_version": "1", "url": self.url,
            "pid": self.me, "pid_started_at": started_at(self.me), "nonce": "n", "device_mask": ["FAKE-0"], "slots_total": 4,
            "model": {"name": "m"}, "written_at": 1, "token": "tok-en",
        } | changes  # fmt: skip
        path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))
        path.chmod(mode)

    def no_handoff(self) -> None:
        """Take the handoff files away."""
        for path in (self.lab.runtime / "engines").glob("*"):
            path.unlink()

    def on_hub(self, *requests: str) -> HubFile:
        """Offer the pool's model, cached and asked for."""
        file = self.lab.hub.files["m.gguf"] = HubFile(b"weights", requests=list(requests))
        (self.folder / "cache").mkdir(exist_ok=True)
        (self.folder / "cache" / "m.gguf").write_bytes(file.data)
        return file

    def answered(self, status: int, body: Any) -> None:
        """Make this the last answer."""
        self.answers["/last"] = (status, body)
        self.world.ask("/last")


def _event(number: int, kind: str, **facts: Any) -> dict[str, Any]:
    return {"id": number, "kind": kind, "facts": facts}


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv(PATIENCE, "0.002")
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    server.answers = {}
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    yield Scene(f"http://127.0.0.1:{server.server_address[1]}", server.answers, tmp_path)
    server.shutdown()
    thread.join()
    server.server_close()


def _module(context: StepFunctionContext) -> str:
    return inspect.unwrap(context.step_func).__module__


@pytest.fixture(scope="session")
def thens() -> list[tuple[StepFunctionContext, str]]:
    """Every `Then` of the library, and the module that it stands in."""
    for each in pkgutil.iter_modules(library.__path__):
        importlib.import_module(f"{library.__name__}.{each.name}")
    return [
        (context, _module(context).rpartition(".")[2])
        for context in step_function_context_registry.values()
        if context.type == "then" and _module(context).startswith(library.__name__)
    ]


@pytest.fixture
def claim(thens):
    """Call a step by its text, as a feature does: the definition is found, the arguments are parsed."""

    def run(text: str, **fixtures: Any) -> None:
        found = [context for context, _ in thens if context.parser.is_matching(text)]
        assert len(found) == 1, f"{len(found)} definitions match {text!r}"
        context = found[0]
        function = inspect.unwrap(context.step_func)
        parsed = context.parser.parse_arguments(text)
        converted = {
            name: context.converters.get(name, lambda value: value)(value) for name, value in parsed.items()
        }
        given = {**fixtures, **converted}
        result = function(**{name: given[name] for name in inspect.signature(function).parameters})
        if inspect.isawaitable(result):
            asyncio.run(result)

    return run


@pytest.fixture
def unclaimed(thens):
    """Return the patterns of the `Then`s of some modules that no claim uses; `except_of` turns the choice round."""

    def run(
        claims: list[str], *, of: set[str] | None = None, except_of: frozenset[str] = frozenset()
    ) -> list[str]:
        mine = [
            context
            for context, module in thens
            if (module in of if of is not None else module not in except_of)
        ]
        return [
            str(context.parser.name)
            for context in mine
            if not any(context.parser.is_matching(text) for text in claims)
        ]

    return run
