"""What can go wrong in the test kit itself."""

from skep.errors import InvalidConfig, Timeout, Unavailable


class LabUnavailable(Unavailable):
    """A host lab cannot be made here, or broke; the reason is in the message."""

    code = "lab_unavailable"


class KitMissing(InvalidConfig):
    """A part of the test kit is not installed: `pip install skep[testkit]`."""

    code = "kit_missing"


class NotYet(Timeout):
    """A condition did not come true before its deadline. Facts: `condition`, `last`, `seconds`."""

    code = "condition_not_met"
