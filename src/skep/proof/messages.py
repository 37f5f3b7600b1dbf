"""Cucumber Messages: the envelopes of a run, by the schema that the Cucumber project publishes.

Only their shapes. What stands in a feature file (documents, pickles) is made where Gherkin is read, in the test kit.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from skep import __version__
from skep.proof.records import Failure, Metadata, Status

PROTOCOL_VERSION = "34.2.0"
RUN_ID = "run"
"""The id of the one test run of a stream."""

Envelope = dict[str, Any]
_NANOS = 1_000_000_000


def timestamp(at: float) -> dict[str, int]:
    """Seconds since the epoch as a Timestamp."""
    nanos = round(at * _NANOS)
    return {"seconds": nanos // _NANOS, "nanos": nanos % _NANOS}


def meta(metadata: Metadata) -> Envelope:
    """Who wrote the stream, and on what."""
    found: dict[str, Any] = {
        "protocolVersion": PROTOCOL_VERSION,
        "implementation": {"name": "skep", "version": __version__},
        "runtime": {"name": platform.python_implementation(), "version": platform.python_version()},
        "os": {"name": platform.system(), "version": platform.release()},
        "cpu": {"name": platform.machine()},
    }
    if "GITHUB_RUN_ID" in os.environ:
        found["ci"] = {"name": "GitHub Actions", "buildNumber": os.environ["GITHUB_RUN_ID"]}
    elif metadata.host is not None and metadata.host.ci:
        found["ci"] = {"name": metadata.host.ci}
    return {"meta": found}


def run_started(*, at: float) -> Envelope:
    """The run began."""
    return {"testRunStarted": {"timestamp": timestamp(at), "id": RUN_ID}}


def run_finished(*, at: float, is_success: bool) -> Envelope:
    """The run ended."""
    return {
        "testRunFinished": {"timestamp": timestamp(at), "success": is_success, "testRunStartedId": RUN_ID}
    }


def step_definition(*, identifier: str, pattern: str, is_regular: bool, uri: str, line: int) -> Envelope:
    """A step definition and where it stands."""
    return {
        "stepDefinition": {
            "id": identifier,
            "pattern": {
                "source": pattern,
                "type": "REGULAR_EXPRESSION" if is_regular else "CUCUMBER_EXPRESSION",
            },
            "sourceReference": {"uri": uri, "location": {"line": max(1, line)}},
        }
    }


def test_case(*, identifier: str, pickle_id: str, steps: Sequence[Mapping[str, Any]]) -> Envelope:
    """What is about to run: each step with the definitions that match it."""
    return {
        "testCase": {
            "id": identifier,
            "pickleId": pickle_id,
            "testSteps": [dict(step) for step in steps],
            "testRunStartedId": RUN_ID,
        }
    }


def test_step(*, identifier: str, pickle_step_id: str, definition_ids: Sequence[str]) -> dict[str, Any]:
    """A step of a test case."""
    return {
        "id": identifier,
        "pickleStepId": pickle_step_id,
        "stepDefinitionIds": list(definition_ids),
        "stepMatchArgumentsLists": [{"stepMatchArguments": []} for _ in definition_ids],
    }


def case_started(*, identifier: str, case_id: str, at: float, worker: str) -> Envelope:
    """A test case began; we never retry, so it is the first attempt."""
    return {
        "testCaseStarted": {
            "id": identifier,
            "testCaseId": case_id,
            "attempt": 0,
            "timestamp": timestamp(at),
            "workerId": worker,
        }
    }


def case_finished(*, started_id: str, at: float) -> Envelope:
    """A test case ended."""
    return {
        "testCaseFinished": {
            "testCaseStartedId": started_id,
            "timestamp": timestamp(at),
            "willBeRetried": False,
        }
    }


def step_started(*, started_id: str, step_id: str, at: float) -> Envelope:
    """A step began."""
    return {
        "testStepStarted": {
            "testCaseStartedId": started_id,
            "testStepId": step_id,
            "timestamp": timestamp(at),
        }
    }


def step_finished(
    *,
    started_id: str,
    step_id: str,
    at: float,
    status: Status,
    duration_s: float,
    error: Failure | None = None,
) -> Envelope:
    """A step ended."""
    nanos = round(duration_s * _NANOS)
    result: dict[str, Any] = {
        "status": status.upper(),
        "duration": {"seconds": nanos // _NANOS, "nanos": nanos % _NANOS},
    }
    if error is not None:
        result["message"] = error.trace or f"{error.type}: {error.message}"
        result["exception"] = {"type": error.type, "message": error.message, "stackTrace": error.trace}
    return {
        "testStepFinished": {
            "testCaseStartedId": started_id,
            "testStepId": step_id,
            "timestamp": timestamp(at),
            "testStepResult": result,
        }
    }


def log_attachment(*, started_id: str, name: str, text: str) -> Envelope:
    """The end of a log, attached to a test case."""
    return {
        "attachment": {
            "body": text,
            "contentEncoding": "IDENTITY",
            "mediaType": "text/x.cucumber.log+plain",
            "fileName": name,
            "testCaseStartedId": started_id,
        }
    }
