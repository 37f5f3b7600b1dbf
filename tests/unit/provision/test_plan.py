"""A plan is a function of the declaration and the facts."""

from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.errors.provision import ContainerUnsupported, EngineNotFound, StepForbidden, ToolsMissing
from skep.provision.plan import Facts, key_of, plan, tools_needed
from skep.spec.engine import EngineKind, EngineSpec, EngineWay

ROOT = Path("/engines")
ALL = frozenset({"download", "build", "package"})
SOURCE = EngineSpec(
    id="llama",
    kind=EngineKind.LLAMA_SERVER,
    way=EngineWay.SOURCE,
    repo="https://example.org/l.git",
    ref="b1",
    flags=("GGML_CUDA=ON",),
)
BINARY = EngineSpec(
    id="bin",
    kind=EngineKind.LLAMA_SERVER,
    way=EngineWay.BINARY,
    url="https://example.org/l.tar.gz",
    sha256="a" * 64,
)
PACKAGE = EngineSpec(id="vllm", kind=EngineKind.VLLM, way=EngineWay.PACKAGE, package="vllm==0.11.0")
TOOLS = {tool: f"/usr/bin/{tool}" for tool in ("git", "cmake", "make", "cc", "c++", "nvcc", "python3")}


def names(engine: EngineSpec, **facts) -> list[str]:
    return [step.name for step in plan(engine, Facts(tools=TOOLS, **facts), root=ROOT, allow=ALL).steps]


def test_source_is_fetched_at_its_commit_and_built() -> None:
    assert names(SOURCE, commit="c" * 40) == ["init", "fetch", "checkout", "configure", "compile"]


def test_a_build_says_how_many_compilers_may_run() -> None:
    steps = plan(SOURCE, Facts(tools=TOOLS, commit="c" * 40, cores=3), root=ROOT, allow=ALL).steps
    assert steps[-1].argv[-2:] == ("--parallel", "3")


def test_a_container_is_refused_in_words() -> None:
    with pytest.raises(ContainerUnsupported, match="external, package, binary, source"):
        EngineSpec(id="c", kind=EngineKind.VLLM, way=EngineWay.CONTAINER)


def test_binary_is_downloaded_and_unpacked() -> None:
    assert names(BINARY) == ["download", "unpack"]


def test_package_goes_into_its_own_environment() -> None:
    assert names(PACKAGE) == ["venv", "install"]


def test_what_is_published_needs_no_step_and_no_tool() -> None:
    result = plan(SOURCE, Facts(tools={}, published=True), root=ROOT, allow=frozenset())
    assert result.steps == ()
    assert result.program.startswith("/engines/llama-server/")


def test_every_missing_tool_is_named_at_once_with_its_command() -> None:
    with pytest.raises(ToolsMissing) as raised:
        plan(SOURCE, Facts(tools={"git": "/usr/bin/git"}), root=ROOT, allow=ALL)
    assert raised.value.missing == ["cmake", "make", "cc", "c++", "nvcc"]
    assert "apt-get install cmake" in str(raised.value)


@pytest.mark.parametrize(
    ("engine", "forbidden"),
    [(SOURCE, "download"), (SOURCE, "build"), (BINARY, "download"), (PACKAGE, "package")],
)
def test_a_forbidden_step_is_refused_by_name(engine: EngineSpec, forbidden: str) -> None:
    with pytest.raises(StepForbidden) as raised:
        plan(engine, Facts(tools=TOOLS), root=ROOT, allow=ALL - {forbidden})
    assert raised.value.permission == forbidden


def test_an_external_engine_that_is_not_on_path_is_told() -> None:
    engine = EngineSpec(id="ls", kind=EngineKind.LLAMA_SERVER)
    with pytest.raises(EngineNotFound, match="llama-server is not on PATH"):
        plan(engine, Facts(tools={}), root=ROOT, allow=ALL)


@pytest.mark.parametrize(
    "change",
    [{"commit": "d" * 40}, {"toolchain": "gcc 13"}],
    ids=["commit", "toolchain"],
)
def test_a_key_changes_with_what_the_build_depends_on(change: dict[str, str]) -> None:
    base = {"commit": "c" * 40, "toolchain": "gcc 12", "platform": "x"}
    assert key_of(SOURCE, **base) != key_of(SOURCE, **{**base, **change})


def test_a_key_does_not_depend_on_the_order_of_flags_or_the_engines_name() -> None:
    one = EngineSpec(
        id="a", kind=EngineKind.LLAMA_SERVER, way=EngineWay.SOURCE, repo="r", ref="x", flags=("A=1", "B=2")
    )
    two = EngineSpec(
        id="b", kind=EngineKind.LLAMA_SERVER, way=EngineWay.SOURCE, repo="r", ref="y", flags=("B=2", "A=1")
    )
    facts = {"commit": "c", "toolchain": "t", "platform": "p"}
    assert key_of(one, **facts) == key_of(two, **facts)


def test_gpu_flags_need_their_compiler() -> None:
    assert "nvcc" in tools_needed(SOURCE)


def test_no_argument_of_a_step_can_be_taken_for_an_option() -> None:
    for engine in (SOURCE, PACKAGE):
        for step in plan(engine, Facts(tools=TOOLS, commit="c" * 40), root=ROOT, allow=ALL).steps:
            if engine.repo in step.argv or engine.package in step.argv:
                assert "--" in step.argv


@pytest.mark.parametrize(
    "wrong",
    [
        {"way": EngineWay.BINARY},
        {"way": EngineWay.SOURCE, "repo": "r"},
        {"way": EngineWay.PACKAGE},
        {"kind": EngineKind.COMMAND},
        {"way": EngineWay.BINARY, "url": "http://example.org/x", "sha256": "a" * 64},
        {"way": EngineWay.BINARY, "url": "https://example.org/x", "sha256": "abc"},
        {"way": EngineWay.PACKAGE, "package": "--index-url=x"},
        {"program": "../bin/sh"},
        {"id": "../x"},
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(wrong: dict) -> None:
    with pytest.raises(InvalidConfig):
        EngineSpec(**{"id": "e", **wrong})
