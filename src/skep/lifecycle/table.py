"""The one interpreter of every life cycle: a table of (state, event) → state, and how it is drawn."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, TypeVar

from skep.errors.lifecycle import IllegalTransition

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class Table(Generic[S, E]):
    """A life cycle. Anything that is not in the table is illegal; a state without a way out is terminal."""

    def __init__(
        self, name: str, *, states: type[S], events: type[E], initial: S, transitions: Mapping[tuple[S, E], S]
    ) -> None:
        self.name = name
        self.states, self.events, self.initial = states, events, initial
        self.transitions: Mapping[tuple[S, E], S] = MappingProxyType(dict(transitions))
        self.terminal = frozenset(states) - {state for state, _ in self.transitions}

    def advance(self, state: S, event: E) -> S:
        """Return the state after `event`. Raises: IllegalTransition."""
        try:
            return self.transitions[state, event]
        except KeyError:
            message = f"a {self.name} that is {state} cannot take the event {event}"
            raise IllegalTransition(message, machine=self.name, state=state, event=event) from None

    def can(self, state: S, event: E) -> bool:
        """True when `event` may happen in `state`."""
        return (state, event) in self.transitions

    def diagram(self) -> str:
        """Return a Mermaid state diagram; events that join the same two states share an arrow."""
        arrows: dict[tuple[S, S], list[str]] = {}
        for (state, event), target in self.transitions.items():
            arrows.setdefault((state, target), []).append(event.value)
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial.value}"]
        lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
        lines += [f"    {state.value} --> [*]" for state in self.states if state in self.terminal]
        return "\n".join(lines)
