"""Policies: what each decides, that the smart ones solve every built-in scenario, and how they fail."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Self

import pytest

from skep.arena.actions import BUILT_IN
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.episode import run_episode
from skep.arena.observation import NodeUsage, Observation
from skep.arena.policies import registry
from skep.arena.policies.base import Decision, FunctionPolicy, Situation
from skep.arena.policies.llm import LlmPolicy, read_answer
from skep.arena.policies.registry import make_policy, policy_names, register_policy
from skep.arena.runner import StepOptions, one_step
from skep.arena.scenarios import HELD_OUT, SCENARIOS, TRAINING, Scenario, find_scenario, select_scenarios
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.trial import Trial, run_trial
from skep.arena.workload import Resources
from skep.errors.arena import PolicyFailed, UnknownName

MIB = 1 << 20


def situation(
    mask: dict[str, bool] | None = None, replicas: int = 3, step: int = 0, **given: Any
) -> Situation:
    seen = Observation(**{"ready": 2, "pending": 1, "total": 3, **given})
    return Situation(
        observation=seen,
        resources=Resources(cpu_m=500, memory_bytes=256 * MIB, replicas=replicas),
        target=3,
        state=(0.0,) * 5,
        step=step,
        steps_max=10,
        seed=0,
        actions=BUILT_IN,
        mask=lambda: {**dict.fromkeys(BUILT_IN, True), **(mask or {})},
        namespace="default",
        deployment="web",
    )


CPU, MEMORY = {"Insufficient cpu": 1}, {"Insufficient memory": 2}


@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"reasons": CPU}, "reduce_cpu_small"),
        ({"reasons": MEMORY}, "reduce_mem_small"),
        ({"reasons": {**CPU, **MEMORY}}, "reduce_mem_small"),
        ({"reasons": CPU, "mask": {"reduce_cpu_small": False}}, "noop"),
        ({"reasons": {"ContainerCreating": 1}}, "noop"),
        ({"oom_killed": 2, "pending": 0}, "bump_mem_small"),
        ({"replicas": 2, "pending": 0, "total": 2}, "scale_up_replicas"),
        ({"replicas": 5, "total": 5, "reasons": CPU}, "scale_down_replicas"),
        ({"ready": 3, "pending": 0}, "noop"),
        ({"reasons": {"node(s) didn't match Pod's node affinity/selector": 1}}, "noop"),
    ],
)
def test_heuristic_mends_what_is_broken(given: dict[str, Any], action: str) -> None:
    assert make_policy("heuristic").decide(situation(**given)).action == action


def test_heuristic_takes_turns_where_both_are_equally_short() -> None:
    both = {"Insufficient cpu": 1, "Insufficient memory": 1}
    actions = {
        make_policy("heuristic").decide(situation(reasons=both, step=step)).action for step in range(2)
    }
    assert actions == {"reduce_cpu_small", "reduce_mem_small"}


@pytest.mark.parametrize(
    ("policy", "given", "action"),
    [
        ("noop", {}, "noop"),
        ("simple", {}, "bump_cpu_small"),
        ("simple", {"pending": 0}, "noop"),
        ("bump_cpu", {}, "bump_cpu_small"),
        ("bump_mem", {}, "bump_mem_small"),
        ("bump_mem", {"ready": 3, "pending": 0}, "noop"),
        ("scale_replicas", {"replicas": 1}, "scale_up_replicas"),
        ("scale_replicas", {"replicas": 9}, "scale_down_replicas"),
        ("scale_replicas", {}, "noop"),
    ],
)
def test_simple_policies(policy: str, given: dict[str, Any], action: str) -> None:
    assert make_policy(policy).decide(situation(**given)).action == action


def test_random_follows_its_seed_and_its_mask() -> None:
    policy = make_policy("random")

    def drawn(seed: int) -> list[str]:
        policy.start(seed)
        return [policy.decide(situation({"noop": True, "bump_cpu_small": False})).action for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert "bump_cpu_small" not in drawn(1)


@pytest.mark.parametrize("policy", ["heuristic", "oracle"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_smart_policies_solve_every_scenario(scenario: Scenario, policy: str) -> None:
    result = run_trial(Trial(scenario.name, policy, seed=1))
    assert result.is_solved, result.views[-1]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_oracle_ends_at_the_reference(scenario: Scenario) -> None:
    last = run_trial(Trial(scenario.name, "oracle", seed=0)).views[-1]
    heuristic = run_trial(Trial(scenario.name, "heuristic", seed=0))
    assert scenario.reference is not None
    assert last.replicas == scenario.target
    assert run_trial(Trial(scenario.name, "oracle", seed=0)).steps <= heuristic.steps


def test_catalogue_is_wide_and_parts_are_apart() -> None:
    assert len(SCENARIOS) >= 12
    assert len(HELD_OUT) >= 4
    assert not {one.name for one in TRAINING} & {one.name for one in HELD_OUT}
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
    assert select_scenarios("too-few, too-many") == (find_scenario("too-few"), find_scenario("too-many"))
    with pytest.raises(UnknownName, match="all-ready"):
        select_scenarios("none-such")


def test_baseline_worsens_what_the_heuristic_mends() -> None:
    assert not run_trial(Trial("cpu-slightly-over", "simple", 0)).is_solved


def test_oracle_needs_a_driver_that_forks() -> None:
    with pytest.raises(PolicyFailed, match="embedded"):
        make_policy("oracle").decide(situation())


def test_oracle_admits_what_no_action_mends(tmp_path: Path) -> None:
    trace = trace_of([WorkloadPlan(extra={"nodeSelector": {"disk": "none-such"}})])
    result = run_episode(
        trace, "default", "web", 3, policy="oracle", options=StepOptions(workspace=tmp_path, steps_max=3)
    )
    assert not result.is_solved
    assert result.ended_by == "bound"
    assert [step.decision.action for step in result.steps] == ["noop"] * 3 or result.return_ > -3


def test_episode_ends_at_the_floor(tmp_path: Path) -> None:
    trace = trace_of([WorkloadPlan(cpu="9")])
    result = run_episode(
        trace, "default", "web", 3, policy="noop", return_floor=-1.0, options=StepOptions(workspace=tmp_path)
    )
    assert (result.is_solved, result.ended_by) == (False, "floor")
    assert result.return_ <= -1.0


def test_plug_in_is_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "skep.arena.policies.simple:RandomPolicy", registry.GROUP),
        EntryPoint("broken", "no.such.module:Policy", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert make_policy("mine").name == "random"
    assert {"mine", "broken", "heuristic"} <= set(policy_names())
    with pytest.raises(PolicyFailed, match=r"no\.such\.module"):
        make_policy("broken")


def test_names_and_options_that_do_not_exist_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="heuristic"):
        make_policy("psychic")
    with pytest.raises(PolicyFailed, match="does not take"):
        make_policy("random", {"luck": "1"})
    monkeypatch.setattr(registry, "FACTORIES", dict(registry.FACTORIES))
    register_policy("mine", lambda: FunctionPolicy("mine", lambda one: Decision("noop")))
    assert make_policy("mine").decide(situation()).action == "noop"
    with pytest.raises(ValueError, match="mine"):
        register_policy("mine", lambda: FunctionPolicy("mine", lambda one: Decision("noop")))


# The language model, on a server that speaks the protocol.


class Endpoint:
    """An OpenAI-compatible server that answers from a script and keeps what it was asked."""

    def __init__(self, *answers: str | int, takes_schema: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        endpoint, script = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *given: Any) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": "tiny"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append(body)
                endpoint.keys.append(self.headers.get("Authorization"))
                if "response_format" in body and not takes_schema:
                    self._send(400, {"error": {"message": "no response_format here"}})
                    return
                answer = script.pop(0) if len(script) > 1 else script[0]
                if isinstance(answer, int):
                    self._send(answer, {"error": {"message": "scripted"}})
                else:
                    self._send(200, {"choices": [{"message": {"role": "assistant", "content": answer}}]})

            def _send(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def good() -> Iterator[Endpoint]:
    with Endpoint('{"action": "reduce_cpu_small", "reason": "too large"}') as endpoint:
        yield endpoint


def test_model_is_told_the_state_and_its_answer_is_taken(good: Endpoint) -> None:
    policy = LlmPolicy(good.url, api_key="secret")
    policy.start(9)
    nodes = (NodeUsage(name="node-0", cpu=0.75, memory=0.1, pods=1),)
    decision = policy.decide(situation(mask={"bump_mem_small": False}, reasons=CPU, nodes=nodes))
    assert decision == Decision("reduce_cpu_small", "too large")
    (asked,) = good.asked
    assert (asked["model"], asked["seed"], asked["temperature"]) == ("tiny", 9, 0)
    prompt = asked["messages"][1]["content"]
    for fact in (
        "2 ready, 1 pending, 3 in all; wanted: 3",
        "500m CPU",
        "256Mi",
        "Insufficient cpu (1)",
        "node-0 cpu 75%",
    ):
        assert fact in prompt
    allowed = asked["response_format"]["json_schema"]["schema"]["properties"]["action"]["enum"]
    assert "bump_mem_small" not in allowed
    assert good.keys == ["Bearer secret"]


def test_server_without_response_format_is_asked_without() -> None:
    with Endpoint("I would choose `scale_up_replicas`.", takes_schema=False) as endpoint:
        policy = LlmPolicy(endpoint.url, model="m")
        assert policy.decide(situation()).action == "scale_up_replicas"
        assert policy.decide(situation()).action == "scale_up_replicas"
        assert ["response_format" in asked for asked in endpoint.asked] == [True, False, False]


def test_useless_answer_is_asked_for_once_more() -> None:
    with Endpoint("hm", '{"action": "noop"}') as endpoint:
        assert LlmPolicy(endpoint.url, "m").decide(situation()).action == "noop"
        assert len(endpoint.asked[1]["messages"]) == 4


@pytest.mark.parametrize("answers", [("hm",), ('{"action": "teleport"}',), (500,), (401,), (429,)])
def test_no_usable_answer_is_a_failure_and_never_a_guess(answers: tuple[str | int, ...]) -> None:
    with Endpoint(*answers) as endpoint, pytest.raises(PolicyFailed):
        LlmPolicy(endpoint.url, "m").decide(situation())


def test_endpoint_that_is_not_there_is_told() -> None:
    with pytest.raises(PolicyFailed, match="cannot be reached"):
        LlmPolicy("http://127.0.0.1:9/v1", "m", timeout_s=1).decide(situation())
    with pytest.raises(PolicyFailed, match="http"):
        LlmPolicy("file:///etc/passwd")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ('{"action": "noop", "reason": "x"}', "noop"),
        ('Sure: ```json\n{"action": "noop"}\n```', "noop"),
        ("noop", "noop"),
        ("either noop or bump_cpu_small", None),
        ('{"action": "explode"}', None),
        ("{broken", None),
        ("", None),
    ],
)
def test_reading_answers(text: str, action: str | None) -> None:
    found = read_answer(text, ["noop", "bump_cpu_small"])
    assert (found and found.action) == action


def test_step_with_a_model_is_recorded(good: Endpoint, tmp_path: Path) -> None:
    trace = trace_of([WorkloadPlan(cpu="1500m")])
    with EmbeddedDriver() as driver:
        result = one_step(
            trace,
            "default",
            "web",
            3,
            policy=LlmPolicy(good.url),
            driver=driver,
            options=StepOptions(workspace=tmp_path),
        )
    assert (result.record.policy, result.record.action, result.record.decision_reason) == (
        "llm",
        "reduce_cpu_small",
        "too large",
    )
