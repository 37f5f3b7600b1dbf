"""Errors of Litestar applications as HTTP: the one handler that every daemon's API uses.

Litestar(route_handlers=[…], exception_handlers=exception_handlers())
"""

import re
from collections.abc import Callable
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotAuthorizedException,
    NotFoundException,
    ValidationException,
)

from skep.errors import InvalidInput, SkepError
from skep.errors.web import BodyTooLarge, MethodNotAllowed, RouteNotFound, Unauthorized
from skep.errors.wire import InvalidRequest
from skep.wire.errors import as_skep, error_headers, error_object

log = structlog.get_logger(__name__)

_SAME: dict[type[Exception], type[SkepError]] = {
    NotFoundException: RouteNotFound,
    NotAuthorizedException: Unauthorized,
}
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def exception_handlers() -> dict[type[Exception] | int, Callable[..., Any]]:
    """Return what a Litestar application takes as `exception_handlers`."""
    return {Exception: handle}


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Answer with the error's status and body; what is not deliberate is logged whole and told as `internal`."""
    known = translate(error)
    if not isinstance(known, SkepError):
        log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    found = as_skep(known)
    return Response(
        content={"error": error_object(found)},
        status_code=found.http_status,
        headers=dict(error_headers(found)),
        media_type="application/json",
    )


def translate(error: Exception) -> Exception:
    """Return the SkepError for one of Litestar's exceptions, `error` itself for any other."""
    if isinstance(error, ValidationException):
        return _validation(error)
    if isinstance(error, MethodNotAllowedException):
        allowed = (error.headers or {}).get("allow", "")
        return MethodNotAllowed("the route does not take this method", allowed=tuple(allowed.split(", ")))
    for foreign, ours in _SAME.items():
        if isinstance(error, foreign):
            return ours()
    if isinstance(error, HTTPException) and error.status_code == BodyTooLarge.http_status:
        return BodyTooLarge()
    if isinstance(error, HTTPException) and error.status_code < 500:  # noqa: PLR2004 - the client's mistakes
        return InvalidInput(error.detail)
    return error


def _validation(error: ValidationException) -> InvalidRequest:
    """Name the fields; the values stay out of it."""
    pairs: list[tuple[str, str]] = []
    for one in error.extra if isinstance(error.extra, list) else []:
        text = str(one.get("message", "is wrong"))
        path = _PATH.search(text)
        pairs.append((path["path"] if path else str(one.get("key", "")), _PATH.sub("", text)))
    summary = "; ".join(f"{field}: {why}" for field, why in pairs)
    return InvalidRequest(summary or error.detail, violations=tuple(pairs))
