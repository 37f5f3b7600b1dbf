"""The life of a node, as the queen judges it. Only `alive` gets new work; no state kills anything."""

from enum import StrEnum, auto
from typing import Final

from skep.lifecycle.table import Table


class NodeState(StrEnum):
    """Where a node is."""

    JOINING = auto()
    ALIVE = auto()
    LOST = auto()
    CORDONED = auto()
    LEFT = auto()  # Terminal: a return is a new registration of the same id.


class NodeEvent(StrEnum):
    """What can happen to a node."""

    REGISTERED = auto()
    LEASE_LOST = auto()
    LEASE_RENEWED = auto()
    CORDON = auto()
    UNCORDON = auto()
    LEAVE = auto()


_S, _E = NodeState, NodeEvent
NODE: Final = Table(
    "node",
    states=NodeState,
    events=NodeEvent,
    initial=_S.JOINING,
    transitions={
        (_S.JOINING, _E.REGISTERED): _S.ALIVE,
        (_S.JOINING, _E.LEAVE): _S.LEFT,
        (_S.ALIVE, _E.LEASE_LOST): _S.LOST,
        (_S.ALIVE, _E.CORDON): _S.CORDONED,
        (_S.ALIVE, _E.LEAVE): _S.LEFT,
        (_S.LOST, _E.LEASE_RENEWED): _S.ALIVE,
        (_S.LOST, _E.CORDON): _S.CORDONED,
        (_S.LOST, _E.LEAVE): _S.LEFT,
        (_S.CORDONED, _E.UNCORDON): _S.ALIVE,
        (_S.CORDONED, _E.LEAVE): _S.LEFT,
    },
)

advance = NODE.advance
