"""A request as it arrives, and what its head must look like before its body is read."""

import msgspec

from skep.errors.web import BodyTooLarge, MalformedHttp, UnsupportedMediaType
from skep.queen import head
from skep.queen.gate import ANONYMOUS, Visitor

_ONCE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"expect"}
)


class Incoming(msgspec.Struct):
    """One request on a client's connection."""

    method: bytes = b""
    target: bytes = b""
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)
    body: list[bytes] = msgspec.field(default_factory=list)
    head_bytes: int = 0
    body_bytes: int = 0
    keep_alive: bool = True
    request_id: str = ""
    visitor: Visitor = ANONYMOUS

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def expects_continue(self) -> bool:
        """True when the client waits for 100 before it sends the body."""
        return self.version == "1.1" and self.header(b"expect").lower() == b"100-continue"

    @property
    def has_body(self) -> bool:
        """True when the head announces a body."""
        return self.header(b"content-length") not in (b"", b"0") or bool(self.header(b"transfer-encoding"))

    def framing_head(self) -> bytes:
        """Return a head that frames the body in the same way and says nothing else."""
        framing = [pair for pair in self.headers if pair[0] in (b"content-length", b"transfer-encoding")]
        return head.request_head(b"POST", b"/", [(b"host", b"x"), *framing])

    def header(self, name: bytes) -> bytes:
        """Return the first header of this lower-case name, b"" when there is none."""
        for one, value in self.headers:
            if one == name:
                return value
        return b""

    def whole_body(self) -> bytes:
        """Return the body in one piece."""
        return self.body[0] if len(self.body) == 1 else b"".join(self.body)

    def judge_head(self, body_bytes_max: int) -> None:
        """Refuse what two parsers could read differently, and what is too large before it is sent.

        Raises: MalformedHttp, BodyTooLarge, UnsupportedMediaType.
        """
        names = [name for name, _ in self.headers if name in _ONCE]
        if len(names) != len(set(names)):
            raise MalformedHttp("a header that may stand once stands twice")
        if self.version == "1.1" and not self.header(b"host"):
            raise MalformedHttp("an HTTP/1.1 request needs exactly one Host header")
        if not self.target.startswith(b"/") and self.target != b"*":
            raise MalformedHttp("the request's target must be a path")
        encoding = self.header(b"transfer-encoding")
        if encoding and encoding.lower() != b"chunked":
            raise MalformedHttp("the only transfer encoding here is chunked")
        length = self.header(b"content-length")
        if length and int(length) > body_bytes_max:
            raise BodyTooLarge(f"the body is larger than {body_bytes_max} bytes")
        if self.header(b"content-encoding") not in (b"", b"identity"):
            raise UnsupportedMediaType("send the body without a content encoding")
        expectation = self.header(b"expect")
        if expectation and expectation.lower() != b"100-continue":
            raise MalformedHttp("the only expectation here is 100-continue")

    def name(self, fallback: str) -> None:
        """Take the client's request id when it is one, else the fallback."""
        given = self.header(b"x-request-id")
        self.request_id = given.decode() if head.is_request_id(given) else fallback
