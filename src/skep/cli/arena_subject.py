"""What `skep arena step` and `episode` share: a trace, a workload in it, where it is simulated, and around it hooks."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from skep.cli.arena_options import (
    BundleOption,
    ContainerOption,
    DeploymentOption,
    DriverOption,
    DurationOption,
    KindOption,
    KubeconfigOption,
    NamespaceOption,
    NodesOption,
    PolicyOptionsOption,
    SeedOption,
    TargetOption,
    TraceArgument,
    TraceFolderOption,
    WorkspaceOption,
    arena_config,
    driver_of,
    subject_of,
)
from skep.errors import InvalidConfig

if TYPE_CHECKING:
    from skep.arena.driver import Driver
    from skep.arena.hooks import Hook
    from skep.arena.step import StepOptions
    from skep.arena.workload import WorkloadRef

HookOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hook",
        help="PHASE=COMMAND, as 'pre_start=./prepare.sh fast'; pre_start, post_start, pre_stop or post_stop; "
        "may be repeated, joins those of skep.toml.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The options, as they were given; each field is one."""

    trace: TraceArgument
    namespace: NamespaceOption = "default"
    deployment: DeploymentOption = None
    target: TargetOption = None
    duration: DurationOption = 60.0
    policy_option: PolicyOptionsOption = None
    seed: SeedOption = 0
    driver: DriverOption = None
    nodes: NodesOption = None
    bundle: BundleOption = None
    kubeconfig: KubeconfigOption = None
    trace_folder: TraceFolderOption = None
    workspace: WorkspaceOption = Path()
    kind: KindOption = None
    container: ContainerOption = None
    hook: HookOption = None

    def workload(self) -> "tuple[WorkloadRef, int]":
        """Return the workload and the target. Raises: InvalidConfig."""
        return subject_of(self.trace, self.namespace, self.deployment, self.target, self.kind, self.container)

    def made_driver(self) -> "Driver":
        """Return the driver that is asked for. Raises: InvalidConfig, DriverUnavailable."""
        return driver_of(self.driver, self.nodes, self.bundle, self.kubeconfig, self.trace_folder)

    def options(self, **more: Any) -> "StepOptions":
        """Return the step's options, with what the configuration says. Raises: InvalidConfig."""
        from skep.arena.step import StepOptions

        configured = arena_config()
        return StepOptions(
            workspace=self.workspace,
            kind=self.kind,
            container=self.container,
            safeguards=configured.safeguards,
            hooks=(*configured.hooks, *hooks_of(self.hook)),
            **more,
        )


def hooks_of(texts: list[str] | None) -> "tuple[Hook, ...]":
    """Parse `--hook`. Raises: InvalidConfig."""
    from skep.arena.hooks import Hook

    found = []
    for text in texts or ():
        phase, _, command = text.partition("=")
        try:
            found.append(Hook(phase=phase, argv=tuple(shlex.split(command))))
        except ValueError as error:
            raise InvalidConfig(f"--hook {text}: {error}; write PHASE=COMMAND") from error
    return tuple(found)


def taking(group: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass as options; it gets them together, as its first parameter."""
    hints = get_type_hints(group, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
    names = {one.name for one in shared}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own_hints = get_type_hints(command, include_extras=True)
        own = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[one.name])
            for one in list(inspect.signature(command).parameters.values())[1:]
        ]

        @wraps(command)
        def run(**given: Any) -> None:
            subject = group(**{name: given.pop(name) for name in names})
            command(subject, **given)

        parameters = [*own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        del run.__wrapped__
        return run

    return decorate
