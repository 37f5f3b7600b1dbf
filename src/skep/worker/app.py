"""The routes of a worker, and every failure as a typed response.

A plain ASGI application: the worker starts in under a second of CPU and its streams are a hot path, and a framework
would cost both (docs/decisions/030-worker-is-plain-asgi.md).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from skep.errors import SkepError
from skep.errors.web import MethodNotAllowed, RouteNotFound
from skep.web.asgi import ClientGone, Receive, Send, send_error
from skep.worker.chat import chat
from skep.worker.completions import completions
from skep.worker.embeddings import embeddings
from skep.worker.execute import cancel, code_of, execute
from skep.worker.health import Health
from skep.worker.request import Request
from skep.worker.service import Service
from skep.worker.status import Status
from skep.worker.tokens import detokenize, tokenize

log = structlog.get_logger(__name__)

Handler = Callable[[Service, Request], Awaitable[None]]
OPENAI_PREFIX = "/v1/"


class WorkerApp:
    """Finds the handler, and answers for those that fail."""

    def __init__(self, service: Service, health: Health) -> None:
        self._service = service
        self._routes = routes(Status(health))

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        path: str = scope["path"]
        try:
            await self._find(path, scope["method"])(self._service, request)
        except ClientGone:
            return
        except SkepError as error:
            code = error.code if path.startswith(OPENAI_PREFIX) else code_of(error)
            self._service.metrics.refused(code)
            if error.http_status >= 500:  # noqa: PLR2004 - ours, not the client's
                log.warning("request_failed", path=path, code=error.code, error=str(error), **request.trace())
            if request.responded:
                raise
            await send_error(send, error, code=code)
        except Exception as error:
            log.exception("request_failed", path=path, **request.trace())
            if request.responded:
                raise  # The server resets the connection: a cut stream is never taken for a finished one.
            await send_error(send, error)

    def _find(self, path: str, method: str) -> Handler:
        """Return the handler. Raises: RouteNotFound, MethodNotAllowed."""
        methods = self._routes.get(path)
        if methods is None:
            raise RouteNotFound(f"no such route; there are {', '.join(sorted(self._routes))}")
        handler = methods.get(method)
        if handler is None:
            allowed = tuple(methods)
            raise MethodNotAllowed(f"{path} takes {' and '.join(allowed)}", allowed=allowed)
        return handler


def routes(status: Status) -> Mapping[str, Mapping[str, Handler]]:
    """Return path → method → handler."""
    return {
        "/execute": {"POST": execute},
        "/cancel": {"POST": cancel},
        "/jobs": {"GET": status.jobs},
        "/drain": {"POST": status.drain},
        "/health": {"GET": status.health},
        "/metrics": {"GET": status.metrics},
        "/v1/models": {"GET": status.models},
        "/v1/chat/completions": {"POST": chat},
        "/v1/completions": {"POST": completions},
        "/v1/embeddings": {"POST": embeddings},
        "/tokenize": {"POST": tokenize},
        "/detokenize": {"POST": detokenize},
    }
