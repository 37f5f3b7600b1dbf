"""What a server refuses before any route is reached."""

from skep.errors import InvalidInput, NotFound, SkepError, Timeout, Unavailable


class Unauthorized(InvalidInput):
    """The bearer token is missing or wrong."""

    code, http_status = "unauthorized", 401


class RouteNotFound(NotFound):
    """No such route on this server."""

    code = "route_not_found"


class MethodNotAllowed(InvalidInput):
    """The route exists, but not for this method."""

    code, http_status = "method_not_allowed", 405


class BodyTooLarge(InvalidInput):
    """The body is larger than this server takes."""

    code, http_status = "body_too_large", 413


class HeadTooLarge(InvalidInput):
    """The request line and headers are larger than this server takes."""

    code, http_status = "head_too_large", 431


class MalformedHttp(InvalidInput):
    """The bytes are not an HTTP/1 request."""

    code = "malformed_http"


class UnsupportedMediaType(InvalidInput):
    """The content type is one that this route does not take."""

    code, http_status = "unsupported_media_type", 415


class RequestTooSlow(Timeout):
    """The request's head or body did not arrive within the time limit."""

    code, http_status = "request_too_slow", 408


class TooManyConnections(Unavailable):
    """The server holds as many connections as it may."""

    code = "too_many_connections"


class PeerFailed(SkepError):
    """A request to another process failed. Facts: `url`, and `status` where one arrived."""

    code, http_status, retryable = "peer_failed", 502, True
