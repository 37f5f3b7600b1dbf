"""Logs are JSON lines, also the standard library's, and hide secrets."""

import io
import json
import logging

import pytest
import structlog

from skep.telemetry.logs import configure


@pytest.fixture
def lines():
    """Return a function that gives what was logged; logging is put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure("test", stream=stream, level="info", instance="n1")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_carries_event_level_service_and_facts(lines):
    structlog.get_logger("a").info("pool_ready", pool_id="p", path=object)
    [line] = lines()
    assert (line["event"], line["level"], line["service"], line["instance"], line["pool_id"]) == (
        "pool_ready", "info", "test", "n1", "p",
    )  # fmt: skip
    assert line["at"].endswith("Z")


def test_standard_library_logs_look_the_same_and_keep_their_traceback(lines):
    try:
        int("boom")
    except ValueError:
        logging.getLogger("other").exception("it %s", "broke")
    [line] = lines()
    assert (line["event"], line["logger"], line["service"]) == ("it broke", "other", "test")
    assert "ValueError: invalid literal" in line["exception"]


def test_secrets_are_hidden_and_the_level_is_kept(lines):
    log = structlog.get_logger("a")
    log.debug("no")
    log.warning("yes", token="s3cret")
    [line] = lines()
    assert line["token"] == "[hidden]"
