"""The API's own error object: `Status`, with the reasons and codes that clients act on."""

from typing import Any

from skep.testkit.kube.resources import Resource


class ApiError(Exception):
    """An answer that is not a success; the server writes `body()` with `code`."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.retry_after_s = details or {}, retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        details = dict(self.details)
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def _details(resource: Resource, name: str) -> dict[str, Any]:
    return {"name": name, "group": resource.group, "kind": resource.plural}


def _qualified(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: Resource, name: str) -> ApiError:
    """404 NotFound."""
    return ApiError(
        404, "NotFound", f'{_qualified(resource)} "{name}" not found', details=_details(resource, name)
    )


def already_exists(resource: Resource, name: str) -> ApiError:
    """409 AlreadyExists."""
    return ApiError(
        409,
        "AlreadyExists",
        f'{_qualified(resource)} "{name}" already exists',
        details=_details(resource, name),
    )


def conflict(resource: Resource, name: str, why: str = "") -> ApiError:
    """409 Conflict: the object is not the one that the caller knew."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(resource)} "{name}": {why}',
        details=_details(resource, name),
    )


def expired(message: str) -> ApiError:
    """410 Expired: the resource version or the continue token is too old."""
    return ApiError(410, "Expired", message)


def invalid(resource: Resource, name: str, field: str, why: str) -> ApiError:
    """422 Invalid."""
    details = _details(resource, name) | {
        "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}]
    }
    return ApiError(422, "Invalid", f'{resource.kind} "{name}" is invalid: {field}: {why}', details=details)


def bad_request(why: str) -> ApiError:
    """400 BadRequest."""
    return ApiError(400, "BadRequest", why)


def unsupported_media_type(content_type: str) -> ApiError:
    """415 UnsupportedMediaType."""
    return ApiError(
        415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {content_type}"
    )


def method_not_allowed() -> ApiError:
    """405 MethodNotAllowed."""
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def unauthorized() -> ApiError:
    """401 Unauthorized."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, resource: Resource, namespace: str, name: str) -> ApiError:
    """403 Forbidden, in the words of Kubernetes' RBAC authorizer."""
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{_qualified(resource)} "{name}"' if name else _qualified(resource)
    return ApiError(
        403,
        "Forbidden",
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource.plural}" in API group "{resource.group}" {scope}',
        details=_details(resource, name),
    )


def too_many_requests(retry_after_s: int) -> ApiError:
    """429 TooManyRequests, as API priority and fairness answers."""
    return ApiError(
        429,
        "TooManyRequests",
        "the server has received too many requests and has asked us to try again later",
        retry_after_s=retry_after_s,
    )
