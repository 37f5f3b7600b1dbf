"""What the life-cycle tables refuse."""

from skep.errors import Conflict


class IllegalTransition(Conflict):
    """This event cannot happen in this state. Facts: `machine`, `state`, `event`."""

    code = "illegal_transition"
