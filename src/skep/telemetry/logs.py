"""Logs: one JSON object a line on stderr, from structlog and from the standard library alike.

configure("hive", instance=nonce)
log = structlog.get_logger(__name__)
log.info("pool_ready", pool_id="pool-0")
"""

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")
LEVEL_VARIABLE = "SKEP_LOG_LEVEL"
_SECRET_KEYS = frozenset({"token", "authorization", "api_key", "password", "secret", "prompt"})

_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure(service: str, *, level: str | None = None, stream: TextIO | None = None, **bound: Any) -> None:
    """Send every log to `stream` (stderr) as JSON lines that carry `service` and what is `bound`.

    The level is the argument, else SKEP_LOG_LEVEL, else info. A value under a key that names a secret is replaced.
    """
    number = logging.getLevelNamesMapping()[(level or os.environ.get(LEVEL_VARIABLE) or "info").upper()]
    target = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        _hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    structlog.contextvars.bind_contextvars(service=service, **bound)


def _hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event.keys() & _SECRET_KEYS:
        event[key] = "[hidden]"
    return event


def _render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encoder.encode(event).decode()
