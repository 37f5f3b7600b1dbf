"""Errors on the wire: one body that both OpenAI's clients and ours read, its status and its headers.

    {"error": {"message", "type", "param", "code", "retryable", …facts}}

`message, type, param, code` are OpenAI's; `code, message, retryable` and the facts are ours. An exception that is no
SkepError becomes `internal` and says nothing of itself. Text that a client sent is never repeated to it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from skep.errors import InternalFault, SkepError

RETRY_AFTER_S_DEFAULT: Final = 1
_HIDDEN: Final = frozenset(
    {"prompt", "text", "token", "nonce", "body", "violations", "message", "code", "type", "param"}
)
_RETRY_STATUS: Final = frozenset({429, 503})
_FACT_CHARS_MAX: Final = 500
_FACTS_IN_LIST_MAX: Final = 100


class Violation(msgspec.Struct, frozen=True):
    """One field of a request, and what is wrong with it."""

    field: str
    message: str


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of an error body, as a client reads it. Other servers leave out what is ours."""

    message: str = ""
    type: str = ""
    param: str | None = None
    code: str | int | None = None
    retryable: bool = False
    violations: tuple[Violation, ...] = ()


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """An error body, as a client reads it."""

    error: ErrorObject


def error_type(status: int) -> str:
    """Return OpenAI's name for the kind of a status."""
    if status in (401, 403):
        return "authentication_error"
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - the classes of statuses


def as_skep(error: BaseException) -> SkepError:
    """Return `error` itself when it is deliberate, else an InternalFault that tells nothing of it."""
    return (
        error if isinstance(error, SkepError) else InternalFault("an internal error; the server's log has it")
    )


def error_object(error: BaseException, *, code: str | None = None) -> dict[str, Any]:
    """Return the inside of an error body. `code` replaces the error's own, which then stands in `cause`."""
    known = as_skep(error)
    violations = _violations(known.facts.get("violations"))
    found: dict[str, Any] = {
        "message": str(known),
        "type": error_type(known.http_status),
        "param": known.facts.get("param") or (violations[0]["field"] if violations else None),
        "code": code or known.code,
        "retryable": known.retryable,
    }
    if code and code != known.code:
        found["cause"] = known.code
    if violations:
        found["violations"] = violations
    for name, value in known.facts.items():
        if name not in _HIDDEN and name not in found and (plain := _plain(value)) is not None:
            found[name] = plain
    return found


def error_body(error: BaseException, *, code: str | None = None) -> bytes:
    """Return an error's JSON body."""
    return msgspec.json.encode({"error": error_object(error, code=code)})


def error_headers(error: BaseException) -> list[tuple[str, str]]:
    """Return the headers that belong to an error: Retry-After, Allow, WWW-Authenticate."""
    known = as_skep(error)
    found: list[tuple[str, str]] = []
    if known.http_status in _RETRY_STATUS:
        wait_s = known.facts.get("retry_after_s", RETRY_AFTER_S_DEFAULT)
        found.append(("retry-after", str(max(1, round(wait_s)))))
    if known.http_status == 405:  # noqa: PLR2004 - Method Not Allowed
        found.append(("allow", ", ".join(known.facts.get("allowed", ()))))
    if known.http_status == 401:  # noqa: PLR2004 - Unauthorized
        found.append(("www-authenticate", "Bearer"))
    return found


def decode_error(body: bytes) -> ErrorObject | None:
    """Return the error object of a response's body, None when it holds none."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _violations(raw: Any) -> list[dict[str, str]]:
    pairs: Iterable[tuple[Any, Any]] = raw.items() if isinstance(raw, Mapping) else raw or ()
    return [{"field": str(field), "message": str(message)} for field, message in pairs]


def _plain(value: Any) -> Any:
    """Return what may go onto the wire of a fact, None for anything else."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:_FACT_CHARS_MAX]
    if isinstance(value, list | tuple):
        return [plain for one in value[:_FACTS_IN_LIST_MAX] if (plain := _plain(one)) is not None]
    return None
