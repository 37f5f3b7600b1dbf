"""What the arena's commands share: options, and how their values become objects."""

import re
import signal
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skep.cli.console import err
from skep.errors import InvalidConfig

if TYPE_CHECKING:
    from skep.arena.config import ArenaConfig
    from skep.arena.driver import Driver, StopToken
    from skep.arena.nodes import NodePlan
    from skep.arena.workload import WorkloadRef

TraceArgument = Annotated[Path, typer.Argument(help="A SimKube trace (MessagePack).")]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="The workload's namespace in the trace.")
]
DeploymentOption = Annotated[
    str | None,
    typer.Option("--deployment", "-d", help="The workload; needless where the trace has only one."),
]
TargetOption = Annotated[
    int | None,
    typer.Option("--target", "-t", min=0, help="Pods that are wanted; default: the trace's replicas."),
]
DurationOption = Annotated[
    float, typer.Option("--duration", help="Simulated seconds until the pods are looked at.")
]
PolicyOption = Annotated[
    str, typer.Option("--policy", "-p", help="Who decides: `skep arena policies` lists them.")
]
PolicyOptionsOption = Annotated[
    list[str] | None,
    typer.Option("--policy-option", help="NAME=VALUE for the policy, as url=http://…; may be repeated."),
]
RewardOption = Annotated[
    str, typer.Option("--reward", "-r", help="base, shaped, scale, cost_aware or max_punish.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]
DriverOption = Annotated[
    str | None, typer.Option("--driver", help="embedded (default), simkube or recorded.")
]
NodesOption = Annotated[
    list[str] | None,
    typer.Option("--nodes", help="Embedded nodes, as 3x4cpu/8Gi or 2x8cpu/32Gi/1gpu; may be repeated."),
]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help="recorded: the run folder to replay.")]
KubeconfigOption = Annotated[
    Path | None, typer.Option("--kubeconfig", help="simkube: the cluster; default KUBECONFIG.")
]
TraceFolderOption = Annotated[
    Path | None,
    typer.Option("--trace-folder", help="simkube: a folder that its driver sees as file:///data."),
]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="Where runs/ and .tmp/ are made.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="Deployment, StatefulSet, ReplicaSet or Job.")]
ContainerOption = Annotated[str | None, typer.Option("--container", help="Act on this container only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
NODES_MAX = 100_000
_NODES = re.compile(
    r"(?P<count>\d+)x(?P<cpu>[\d.]+m?)(?:cpu)?/(?P<memory>[\d.]+[KMGT]i?)(?:/(?P<gpus>\d+)gpu)?"
)


def nodes_of(texts: list[str] | None) -> "tuple[NodePlan, ...]":
    """Parse `--nodes`. Raises: InvalidConfig."""
    from skep.arena.nodes import DEFAULT_NODES, NodePlan

    plans = []
    for number, text in enumerate(texts or ()):
        found = _NODES.fullmatch(text)
        if found is None or not 0 < int(found["count"]) <= NODES_MAX:
            raise InvalidConfig(f"--nodes {text}: write COUNTxCPU/MEMORY, as 3x4cpu/8Gi")
        plans.append(
            NodePlan(
                count=int(found["count"]),
                cpu=found["cpu"],
                memory=found["memory"],
                gpus=int(found["gpus"] or 0),
                name="node" if number == 0 else f"node{number}",
            )
        )
    return tuple(plans) or DEFAULT_NODES


def arena_config() -> "ArenaConfig":
    """Return the table `[arena]` of the configuration. Raises: InvalidConfig."""
    from skep.arena.config import parse_arena_config
    from skep.cli.settings import load_config

    return parse_arena_config(load_config().config.arena)


def driver_of(
    name: str | None,
    nodes: list[str] | None,
    bundle: Path | None,
    kubeconfig: Path | None,
    trace_folder: Path | None,
) -> "Driver":
    """Make the driver that the options, else the configuration, ask for. Raises: InvalidConfig, DriverUnavailable."""
    configured = arena_config()
    name = name or configured.driver
    nodes = nodes or list(configured.nodes)
    if name == "embedded":
        from skep.arena.embedded_driver import EmbeddedDriver

        return EmbeddedDriver(nodes_of(nodes))
    if name == "simkube":
        from skep.arena.simkube import SimKubeDriver, SimKubeOptions

        return SimKubeDriver(SimKubeOptions(kubeconfig=kubeconfig, trace_folder=trace_folder))
    if name == "recorded":
        from skep.arena.recorded import RecordedDriver

        if bundle is None:
            raise InvalidConfig("--driver recorded needs --bundle, the run folder to replay")
        return RecordedDriver(bundle)
    raise InvalidConfig(f"--driver {name}: embedded, simkube or recorded")


def policy_options(texts: Iterable[str] | None) -> dict[str, str]:
    """Parse `--policy-option NAME=VALUE`. Raises: InvalidConfig."""
    options = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidConfig(f"--policy-option {text}: write NAME=VALUE")
        options[name] = value
    return options


def subject_of(
    trace: Path,
    namespace: str,
    deployment: str | None,
    target: int | None,
    kind: str | None,
    container: str | None,
) -> "tuple[WorkloadRef, int]":
    """Return the workload and the target, from the trace where the options leave them out. Raises: InvalidConfig."""
    from skep.arena.trace.info import trace_info
    from skep.arena.trace.trace import read_trace
    from skep.arena.workload import WorkloadRef, find_resources

    if deployment is None:
        there = [name for name in trace_info(trace).workloads if name.startswith(f"{namespace}/")]
        if len(there) != 1:
            listed = ", ".join(there) or "none"
            raise InvalidConfig(
                f"{trace}: name the workload with --deployment; in namespace {namespace} there are: {listed}"
            )
        deployment = there[0].partition("/")[2]
    workload = WorkloadRef(namespace, deployment, kind, container)
    return workload, find_resources(read_trace(trace), workload).replicas if target is None else target


@contextmanager
def stopping() -> "Generator[StopToken]":
    """Yield a token that SIGTERM stops, so that a step cleans up before the command ends."""
    from skep.arena.driver import StopToken

    token = StopToken()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        token.stop()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield token
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def told_warnings() -> Generator[None]:
    """Print warnings (an old trace version) as one line on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        def show(message: Any, *_: Any, **__: Any) -> None:
            err().print(f"skep: {message}", markup=False)

        warnings.showwarning = show
        yield
