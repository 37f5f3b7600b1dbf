"""What can go wrong with bytes between two processes."""

from skep.errors import InternalFault, InvalidInput


class InvalidRequest(InvalidInput):
    """The body of a request breaks its contract.

    Fact `violations`: a tuple of (field, what is wrong with it), every one, never with the value that was sent.
    """

    code = "invalid_request"


class MalformedJson(InvalidInput):
    """The body is not JSON, or not a JSON object."""

    code = "malformed_json"


class MalformedStream(InternalFault):
    """An event stream that breaks the rules. Fact `at_byte`: how many bytes of it were read."""

    code, http_status = "malformed_stream", 502


class EventTooLarge(MalformedStream):
    """One event of a stream is larger than the reader allows."""

    code = "event_too_large"


class UnsafeField(InvalidInput):
    """An event's name or id holds a character that would break the framing."""

    code = "unsafe_field"
