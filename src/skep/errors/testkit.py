"""What can go wrong in the test kit itself."""

from skep.errors import Unavailable


class LabUnavailable(Unavailable):
    """A host lab cannot be made here, or broke; the reason is in the message."""

    code = "lab_unavailable"
