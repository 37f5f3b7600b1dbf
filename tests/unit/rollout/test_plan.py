"""Plans are functions of facts and configuration; the cases stand in plan_cases.toml."""

import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import SkepError
from skep.rollout import layout, recipes, staging
from skep.rollout.artifact import Artifact
from skep.rollout.facts import HostFacts
from skep.rollout.plan import HostPlan, Options, plan, plan_uninstall
from skep.rollout.steps import RemoteStep, q, render
from skep.spec.host import HiveHost, Install, LocalInstall

CASES = tomllib.loads((Path(__file__).parent / "plan_cases.toml").read_text())["case"]
FRESH: dict[str, Any] = {
    "home": "/home/u",
    "kernel": "Linux",
    "machine": "x86_64",
    "uid": 1000,
    "time_s": 0,
    "free_bytes": 10 << 30,
    "is_writable": True,
    "tools": ["flock", "setsid", "sha256sum", "timeout", "git", "curl"],
    "pythons": {"3.12": "/usr/bin/python3.12"},
}
INSTALL = Install(local=LocalInstall(path="x"))


def host_of(case: dict[str, Any]) -> HiveHost:
    host = {"alias": "h", "hostname": "h.example", "workers": case.get("workers", []), **case.get("host", {})}
    return msgspec.convert({"install": msgspec.to_builtins(INSTALL), **host}, HiveHost)


def facts_of(case: dict[str, Any]) -> HostFacts:
    manifest = {"config_key": recipes.config_key(host_of(case), ""), **case.get("manifest", {})}
    given_facts = {**FRESH, **case.get("facts", {}), "manifest": manifest}
    if given_facts.get("link") == "LINK":
        given_facts["link"] = recipes.BIN_LINK
    return msgspec.convert(given_facts, HostFacts)


def plan_of(case: dict[str, Any]) -> HostPlan:
    wanted = case.get("artifact", {})
    sent = {} if wanted.keys() & {"url", "repo"} else {"file": "/c/skep", "sha256": "aa", "name": "skep"}
    artifact = {"key": "new", "kind": "binary", "source": "s", **sent, **wanted}
    return plan(
        host_of(case),
        facts_of(case),
        msgspec.convert(artifact, Artifact),
        msgspec.convert(case.get("options", {}), Options),
        now_s=0,
    )


@pytest.mark.parametrize("case", [case for case in CASES if "steps" in case], ids=lambda case: case["name"])
def test_steps_follow_from_facts_and_configuration(case: dict[str, Any]) -> None:
    result = plan_of(case)
    assert [step.name for step in result.steps] == case["steps"]
    assert len(result.uploads) == case.get("sends", len(result.uploads))
    assert result.key == case.get("key", "new")
    assert result.replaces == case.get("replaces", result.replaces)


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case], ids=lambda case: case["name"])
def test_what_cannot_be_is_told_with_every_reason(case: dict[str, Any]) -> None:
    with pytest.raises(SkepError) as raised:
        plan_of(case)
    assert raised.value.code == case["error"]
    for text in case.get("says", ()):
        assert text in str(raised.value)


def test_a_plan_is_the_same_for_the_same_facts() -> None:
    for case in CASES:
        if "steps" in case:
            assert plan_of(case) == plan_of(case)


def test_uninstalling_a_host_that_has_nothing_does_nothing() -> None:
    assert plan_uninstall("h", facts_of({})).is_noop


def test_the_script_of_every_plan_is_sound_shell() -> None:
    for case in CASES:
        if case.get("steps"):
            script = render(plan_of(case).steps, nonce="0" * 16, manifest_text="x")
            subprocess.run(["sh", "-n"], input=script.encode(), check=True)
            for step in plan_of(case).steps:
                subprocess.run(["sh", "-n"], input=step.script.encode(), check=True)


AWKWARD = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=40)


@given(AWKWARD)
def test_any_text_survives_quoting(text: str) -> None:
    assert shlex.split(q(text)) == [text]


@given(name=AWKWARD.filter(lambda text: "\n" not in text and "/" not in text))
def test_a_file_name_with_anything_in_it_stays_one_word(name: str) -> None:
    artifact = Artifact(key="k", kind="binary", source="s", file="/c/f", sha256="ab", name=name)  # type: ignore[arg-type]
    words = shlex.split(staging.stage(artifact, "/usr/bin/python3", is_checked=False).script, comments=False)
    assert f"{layout.UPLOADS}/ab/{name}" in words


@given(AWKWARD)
def test_a_step_with_any_text_reaches_the_shell_unchanged(text: str) -> None:
    step = RemoteStep(name="say", detail="", script=f"printf %s {q(text)}\n")
    script = render([step], nonce="0" * 16, manifest_text="").split("run() {")[1]
    done = subprocess.run(
        ["sh", "-c", "N=n\nbegin_watch() { :; }\nrun() {" + script], capture_output=True, check=True
    )
    assert done.stdout.decode() == f"n begin say\n{text}n done say\n"
