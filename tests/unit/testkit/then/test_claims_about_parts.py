"""Every `Then` about a worker, a rollout or the arena fails where it does not hold, and passes where it does."""

import asyncio
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import pytest

from skep.wire.events import End, Error, Started, Token

MODULES = {"worker", "rollout", "arena"}
Change = Callable[[Any], None]


class Parts:
    """A worker, a rollout and an arena of which every claim holds."""

    def __init__(self, folder: Any) -> None:
        self.health = {"slots_free": 4, "slots_total": 4, "instance": "n", "resident": True}
        self.http_status = 503
        self.seen: dict[str, Any] = {
            "runs": [run(), run()],
            "status": 400,
            "text": "prompt max_tokens temperature",
        }
        self.rows = [
            SimpleNamespace(status="installed", error_code="c", error="it says so") for _ in range(2)
        ]
        self.link = "1.0"
        self.package_status, self.failed, self.retries, self.exit_code = "ok", 1, 1, -15
        self.metrics = SimpleNamespace(success_rate=0.5, failure_modes={"c": 1}, recovered=1)
        self.is_whole = True
        self.manifest = [{"type": "a", "version": "1"}]
        self.outcomes = ["installed", "already_installed"]
        self.solved = True
        self.steps = [
            SimpleNamespace(
                decision=SimpleNamespace(action="noop"), action_info=SimpleNamespace(blocked=True)
            )
        ]
        self.records = [[{"step": 0, "status": "ok"}], [{"step": 0, "status": "ok"}]]
        self.summary = {"steps": 1}
        self.error: Any = SimpleNamespace(code="bad")
        self.workspaces = [folder / "w0", folder / "w1"]
        self.is_written = True
        self.left: list[str] = []

    def fixtures(self) -> dict[str, Any]:
        """What pytest would hand to the steps."""
        return {
            "worker": self._worker(),
            "worker_seen": self.seen,
            "rollout": self._rollout(),
            "arena": self._arena(),
        }

    def _worker(self) -> Any:
        async def health() -> dict[str, Any]:
            return self.health

        async def until_health(holds: Callable[[Any], bool]) -> dict[str, Any]:
            assert holds(self.health), "not within its time"
            return self.health

        async def request(*_: Any, **__: Any) -> Any:
            return Reply(self.http_status)

        client = SimpleNamespace(request=request)
        return SimpleNamespace(health=health, until_health=until_health, nonce="n", client=client)

    def _rollout(self) -> Any:
        reports = [SimpleNamespace(hives=[SimpleNamespace(status=each)]) for each in self.outcomes]
        return SimpleNamespace(
            report=SimpleNamespace(hives=self.rows, hives_failed=self.failed, metrics=self.metrics, retries=self.retries), count=2,
            exit_code=self.exit_code, manifest=lambda: json.dumps({"workers": self.manifest}), row=lambda: self.rows[0], hosts=lambda: ["h"],
            installed=lambda _=0: self.link, version="1.0", harness=self, reports=reports,
        )  # fmt: skip

    async def status(self, _: Any) -> Any:
        """What skep package-status says."""
        return SimpleNamespace(status=self.package_status)

    def _arena(self) -> Any:
        for workspace in self.workspaces if self.is_written else ():
            (workspace / "runs").mkdir(parents=True, exist_ok=True)
            (workspace / "runs" / "summary.json").write_text(json.dumps(self.summary))
        result = SimpleNamespace(is_solved=self.solved, ended_by="x", steps=self.steps)
        store = SimpleNamespace(list_all=lambda _: self.left)
        return SimpleNamespace(
            result=lambda: result, records=lambda number=-1: self.records[number], workspaces=self.workspaces,
            error=self.error, api=SimpleNamespace(store=store, resource=str),
        )  # fmt: skip


class Reply:
    """An HTTP answer of which only the status counts."""

    def __init__(self, status: int) -> None:
        self.status = status

    async def text(self) -> str:
        return ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)


def nothing(_: Parts) -> None:
    pass


def run(*, tokens: int = 2, text: str = "a", last: Any = None) -> list[Any]:
    started = Started(job_id="j", model="m", seed=1, started_at="now")
    end = End(tokens_out=tokens, decode_ms=1, stop_reason="max_tokens")
    return [started, *(Token(text=text, index=index) for index in range(tokens)), last or end]


def cancelled(code: str = "cancelled") -> Error:
    return Error(code=code, message="m", retryable=False)


def runs(*found: list[Any]) -> Change:
    return lambda parts: parts.seen.update(runs=list(found))


def seen(**facts: Any) -> Change:
    return lambda parts: parts.seen.update(facts)


def health(**facts: Any) -> Change:
    return lambda parts: parts.health.update(facts)


def first(**facts: Any) -> Change:
    return lambda parts: vars(parts.rows[0]).update(facts)


def second(**facts: Any) -> Change:
    return lambda parts: vars(parts.rows[1]).update(facts)


def it(**facts: Any) -> Change:
    return lambda parts: vars(parts).update(facts)


def metrics(**facts: Any) -> Change:
    return lambda parts: vars(parts.metrics).update(facts)


def blocked(value: bool) -> Change:
    return lambda parts: vars(parts.steps[0].action_info).update(blocked=value)


@dataclass
class Claim:
    """What a step says, what makes it true where the plain parts do not, and the lies it must not believe."""

    text: str
    lies: tuple[Change, ...]
    true: Change = nothing


SECOND_START = run()[:1] * 2 + run()[1:]
CLAIMS = [
    Claim("the stream should have 2 tokens and one end",
          (runs(run(tokens=3)), runs(run()[:-1]), runs([*run(), cancelled()]), runs(run()[1:]), runs(SECOND_START), runs([]),
           runs(run(last=cancelled())))),
    Claim("both streams should be equal", (runs(run(), run(text="b")), runs(run()[:-1], run()[:-1]))),
    Claim('the stream should end with the error "cancelled"', (runs(run()), runs(run(last=cancelled("device_error"))), runs(run()[:-1])),
          runs(run(last=cancelled()))),
    Claim("every slot of the worker should be free again", (health(slots_free=3),)),
    Claim("the worker should prove itself by its nonce", (health(instance="other"), health(resident=False))),
    Claim("the worker should answer 400 and name every mistake", (seen(status=500), seen(text="prompt temperature"))),
    Claim("the worker should refuse new jobs", (it(http_status=200), it(http_status=500))),
    Claim('every host should be "installed"', (first(status="failed"), second(status="unknown"), lambda parts: parts.rows.clear())),
    Claim('the host should be "failed" with the code "c"', (first(status="installed"), first(error_code="other")), first(status="failed")),
    Claim('the other hosts should be "installed"', (second(status="failed"), lambda parts: parts.rows.pop())),
    Claim('the error should say "says"', (first(error=""),)),
    Claim('every host should run skep "1.0"', (it(link="2.0"), it(link=""), it(is_whole=False))),
    Claim('the host should still have skep "1.0"', (it(link="2.0"), it(link=""))),
    Claim("the host should have nothing of skep", (it(link="1.0"),), it(link="")),
    Claim('the manifest should list the workers "a 1"', (it(manifest=[]), it(manifest=[{"type": "a", "version": "2"}]))),
    Claim("one sync should have done the work and both should agree",
          (it(outcomes=["already_installed", "failed"]), it(outcomes=["already_installed"] * 2), it(link="0.9"))),
    Claim('the status should be "ok"', (it(package_status="drifted"),)),
    Claim("the report should count 1 failed of 2",
          (it(failed=0), lambda parts: parts.rows.pop(), metrics(success_rate=0.0), metrics(failure_modes={})), metrics(success_rate=0.5)),
    Claim("the report should count 1 recovered host(s)", (metrics(recovered=0), it(retries=0))),
    Claim("the command should have ended with -15", (it(exit_code=0), it(exit_code=15))),
    Claim("the episode should be solved", (it(solved=False),)),
    Claim("the episode should not be solved", (it(solved=True),), it(solved=False)),
    Claim('the actions should be "noop"', (it(steps=[]),)),
    Claim('every step should be recorded with status "ok"',
          (it(records=[[]]), it(records=[[{"step": 1, "status": "ok"}]]), it(records=[[{"step": 0, "status": "failed"}]]))),
    Claim("the summary should count every recorded step", (it(summary={"steps": 2}), it(steps=[]), it(records=[[]]))),
    Claim("both episodes should have left the same records", (it(records=[[{"step": 0, "status": "ok"}], [{"step": 0, "status": "failed"}]]),)),
    Claim('the episode should be refused as "bad"', (it(error=None), it(error=SimpleNamespace(code="other")))),
    Claim("nothing should have been written", (it(is_written=True),), it(is_written=False)),
    Claim("an action should have been blocked", (blocked(False), it(steps=[]))),
    Claim("no simulation should be left on the cluster", (it(left=["simulation"]),)),
]  # fmt: skip


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Parts:
    found = Parts(tmp_path)

    async def looks_whole(harness: Parts, _: Any) -> None:
        assert harness.is_whole, "the program does not run"

    rollout_steps = importlib.import_module(
        "skep.testkit.steps.rollout"
    )  # The package has a fixture of that name.
    monkeypatch.setattr(rollout_steps, "assert_hive_installed", looks_whole)
    return found


@pytest.mark.parametrize("each", CLAIMS, ids=lambda each: each.text)
def test_a_claim_passes_where_it_holds(parts, claim, each: Claim) -> None:
    each.true(parts)
    claim(each.text, **parts.fixtures())


@pytest.mark.parametrize(
    ("each", "lie"),
    [
        pytest.param(each, lie, id=f"{each.text}-{index}")
        for each in CLAIMS
        for index, lie in enumerate(each.lies)
    ],
)
def test_a_claim_fails_where_it_does_not_hold(parts, claim, each: Claim, lie: Change) -> None:
    each.true(parts)
    lie(parts)
    with pytest.raises(AssertionError):
        claim(each.text, **parts.fixtures())


def test_every_then_of_these_modules_has_a_claim(unclaimed) -> None:
    assert unclaimed([each.text for each in CLAIMS], of=MODULES) == []
