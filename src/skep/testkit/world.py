"""What the steps of one scenario share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skep.testkit.fleet.ask import Response, ask
from skep.testkit.fleet.daemon import Daemon
from skep.testkit.fleet.lab import Lab
from skep.testkit.waiting import patient_s

STATE_S_MAX = 40.0


@dataclass
class World:
    """The hive under test, and what was seen of it. `marks` is each pool's last event before the latest action."""

    lab: Lab
    hive_url: str = ""
    last_response: Response | None = None
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    handoff_files: list[Path] = field(default_factory=list)
    token: str = ""
    is_external: bool = False
    hive: Daemon | None = None
    queen: Daemon | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)

    def own(self) -> Lab:
        """Return the lab; skip where the hive is somebody else's and cannot be set up."""
        if self.is_external:
            pytest.skip("needs its own hive, and this run was given one by --url")
        return self.lab

    def fake_devices(self) -> Lab:
        """Return the lab; skip where the run is on real devices, which nobody can script."""
        lab = self.own()
        if lab.has_real_devices:
            pytest.skip("scripts a fake device, and this run is on real ones (--devices real)")
        return lab

    def running_hive(self) -> Daemon:
        """Return the hive that we started."""
        self.own()
        assert self.hive is not None, "no hive was started: begin with 'Given the hive is running'"
        return self.hive

    def start_hive(self, **settings: Any) -> None:
        """Start our hive, unless the run was given one."""
        if self.is_external:
            return
        self.hive = self.lab.start_hive(**settings)
        self.hive_url = self.hive.url

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Response:
        """Send a request to the hive and keep the answer."""
        self.last_response = ask(self.hive_url, path, body, method=method, token=self.token)
        return self.last_response

    def act(self, pool_id: str, verb: str, body: Any = None) -> Response:
        """Do something to a pool; what happens from now on is what the steps after it look at."""
        self.mark(pool_id)
        return self.ask(f"/v2/pools/{pool_id}/{verb}", body if body is not None else {}, method="POST")

    def declare(self, pool_id: str, model: str, **fields: Any) -> Response:
        """Declare a pool on the run's backend and devices; skip where it cannot be, for its model is a script."""
        self.need_backend_of(model)
        lab = self.lab
        spec = {"id": pool_id, "model": model, "backend": lab.backend, "devices": lab.mask, **fields}
        self.marks.setdefault(pool_id, 0)
        return self.ask("/v2/pools", {"pool": spec, "preload": False}, method="POST")

    def need_backend_of(self, model: str) -> None:
        """Skip where a model is a script of the fake backend, and the run is on another."""
        lab = self.lab
        if lab.backend != "fake" and lab.models.get(model, model).startswith("fake:"):
            pytest.skip(
                f"the model {model} is a script of the fake backend, and this run is on {lab.backend}"
            )

    def pool(self, pool_id: str) -> dict[str, Any]:
        """Return a pool as the hive shows it now."""
        answer = ask(self.hive_url, f"/v2/pools/{pool_id}", token=self.token)
        assert answer.status == 200, f"{pool_id}: {answer.status} {answer.text}"
        self.pools[pool_id] = answer.body
        return self.pools[pool_id]

    def events(self, pool_id: str, *, kind: str = "") -> list[dict[str, Any]]:
        """Return a pool's events since the latest action."""
        import json

        answer = ask(self.hive_url, f"/v2/pools/{pool_id}/events?follow=false", token=self.token)
        found = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        after = self.marks.get(pool_id, 0)
        return [each for each in found if each["id"] > after and kind in {"", each["kind"]}]

    def mark(self, pool_id: str) -> None:
        """Forget what happened to a pool so far."""
        self.marks[pool_id] = 0
        self.marks[pool_id] = max((each["id"] for each in self.events(pool_id)), default=0)

    def states(self, pool_id: str) -> list[str]:
        """The states that a pool went through since the latest action, in order."""
        return [each["facts"]["state"] for each in self.events(pool_id, kind="pool")]

    def until_pool(
        self,
        pool_id: str,
        holds: Callable[[dict[str, Any]], Any],
        *,
        what: str,
        within_s: float = STATE_S_MAX,
    ) -> dict[str, Any]:
        """Wait until a pool fulfils something; return it. Raises: AssertionError with what was last seen."""
        within_s = patient_s(within_s)
        deadline = time.monotonic() + within_s
        while True:
            found = self.pool(pool_id)
            if holds(found):
                return found
            told = {name: found[name] for name in ("state", "last_error", "fit", "progress", "replicas")}
            assert time.monotonic() < deadline, (
                f"{pool_id} {what}: not within {within_s:g} s; it is {told}\n{self.lab.log_tails()}"
            )
            time.sleep(0.03)

    def until_ready(self, pool_id: str) -> dict[str, Any]:
        """Wait until all wanted replicas of a pool serve."""

        def serves(pool: dict[str, Any]) -> bool:
            up = sum(each["state"] == "ready" for each in pool["replicas"])
            return bool(pool["state"] == "ready" and up == pool["replicas_wanted"])

        return self.until_pool(pool_id, serves, what="is ready")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a series' samples with these labels. Raises: AssertionError when there is none."""
        answer = ask(self.hive_url, "/metrics", token=self.token)
        found = [
            float(line.rpartition(" ")[2])
            for line in answer.text.splitlines()
            if line.startswith((f"{name}{{", f"{name} "))
            and all(f'{key}="{value}"' in line for key, value in labels.items())
        ]
        assert found, f"no series {name} with {labels} at {self.hive_url}/metrics"
        return sum(found)
