"""Policies by name: the built-in ones, those of this process, and plug-ins by entry point `skep.policies`."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from skep.arena.policies.base import FunctionPolicy, Policy
from skep.arena.policies.heuristic import heuristic
from skep.arena.policies.oracle import OraclePolicy
from skep.arena.policies.simple import RandomPolicy, bump_cpu, bump_mem, noop, scale_replicas, simple_policy
from skep.errors.arena import PolicyFailed, UnknownName

GROUP: Final = "skep.policies"
Factory = Callable[..., Policy]


def _llm(**options: Any) -> Policy:
    from skep.arena.policies.llm import LlmPolicy

    return LlmPolicy(**options)


def _dqn(**options: Any) -> Policy:
    from skep.arena.policies.learned import LearnedPolicy

    return LearnedPolicy(**options)


FACTORIES: dict[str, Factory] = {
    "noop": lambda: FunctionPolicy("noop", noop),
    "simple": lambda: FunctionPolicy("simple", simple_policy),
    "heuristic": lambda: FunctionPolicy("heuristic", heuristic),
    "random": RandomPolicy,
    "bump_cpu": lambda: FunctionPolicy("bump_cpu", bump_cpu),
    "bump_mem": lambda: FunctionPolicy("bump_mem", bump_mem),
    "scale_replicas": lambda: FunctionPolicy("scale_replicas", scale_replicas),
    "oracle": OraclePolicy,
    "llm": _llm,
    "dqn": _dqn,
}


def register_policy(name: str, factory: Factory) -> None:
    """Add a policy for this process; a name that is taken is refused."""
    if name in FACTORIES:
        raise ValueError(f"a policy {name!r} exists already")
    FACTORIES[name] = factory


def policy_names() -> tuple[str, ...]:
    """Return every name that `make_policy` takes, plug-ins included."""
    return (*FACTORIES, *(one.name for one in entry_points(group=GROUP) if one.name not in FACTORIES))


def make_policy(name: str, options: Mapping[str, Any] | None = None) -> Policy:
    """Make a policy by name. Raises: UnknownName, PolicyFailed (a plug-in that cannot be loaded, wrong options)."""
    factory: Factory | None = FACTORIES.get(name)
    if factory is None:
        found = [one for one in entry_points(group=GROUP) if one.name == name]
        if not found:
            known = policy_names()
            raise UnknownName(f"no policy {name!r}; there are {', '.join(known)}", known=known)
        try:
            factory = found[0].load()
        except Exception as error:
            raise PolicyFailed(
                f"the plug-in {found[0].value} cannot be loaded: {error}", policy=name
            ) from error
    try:
        return factory(**(options or {}))
    except TypeError as error:
        raise PolicyFailed(
            f"policy {name!r} does not take {dict(options or {})}: {error}", policy=name
        ) from error
