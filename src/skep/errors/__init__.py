"""Every deliberate failure, as one tree.

    SkepError
    ├── InvalidInput            what was asked for is wrong; asking again changes nothing
    ├── NotFound                no such thing here
    ├── Conflict                it cannot be done in this state
    ├── Unavailable             not now; later may work
    ├── Timeout                 a stated limit ran out
    └── InternalFault           our own mistake, or a part that broke

A room's own errors stand in the file of that room's name beside this one, below one of these six.
Facts are attributes; `str()` is for people only. `code` is stable and goes onto the wire.
"""

from typing import Any, ClassVar


class SkepError(Exception):
    """Base of every deliberate failure.

    Keyword arguments become attributes (facts); `message` is one line that says what, where and the next step.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message or (type(self).__doc__ or self.code).splitlines()[0])
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        msg = f"{type(self).__name__} has no fact {name!r}"
        raise AttributeError(msg)


class InvalidInput(SkepError):
    """What was asked for is wrong; asking again changes nothing."""

    code, http_status, retryable = "invalid_request", 400, False


class InvalidConfig(InvalidInput):
    """Our own configuration or a command line is wrong: exit code 2."""

    code = "invalid_config"


class NotFound(SkepError):
    """There is no such thing here."""

    code, http_status, retryable = "not_found", 404, False


class Conflict(SkepError):
    """It cannot be done in the present state."""

    code, http_status, retryable = "conflict", 409, False


class Unavailable(SkepError):
    """Not now; later may work."""

    code, http_status, retryable = "unavailable", 503, True


class Timeout(SkepError):
    """A stated limit ran out."""

    code, http_status, retryable = "timeout", 504, True


class InternalFault(SkepError):
    """Our own mistake, or a part that broke."""

    code, http_status, retryable = "internal", 500, False
