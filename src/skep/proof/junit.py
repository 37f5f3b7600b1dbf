"""JUnit XML for CI systems, by the common schema (testsuites / testsuite / testcase / failure / skipped)."""

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from skep.proof.reading import BundleView
from skep.proof.records import ScenarioRecord, Status

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FAILED = (Status.FAILED, Status.UNDEFINED)


def render_junit(view: BundleView) -> bytes:
    """Return the file: a suite for each feature, a case for each scenario, so far as recorded."""
    suites: dict[str, list[ScenarioRecord]] = defaultdict(list)
    for record in view.scenarios:
        suites[record.feature].append(record)
    root = ET.Element("testsuites", name=f"skep {view.metadata.kind}", **_totals(list(view.scenarios)))
    for feature, records in suites.items():
        at = datetime.fromtimestamp(min(record.started_at for record in records), tz=UTC)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_clean(feature),
            timestamp=at.strftime("%Y-%m-%dT%H:%M:%S"),
            **_totals(records),
        )
        for record in records:
            _add_case(suite, record, view)
    body: bytes = ET.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + body + b"\n"


def _totals(records: list[ScenarioRecord]) -> dict[str, Any]:
    return {
        "tests": str(len(records)),
        "failures": str(sum(record.status in _FAILED for record in records)),
        "errors": "0",
        "skipped": str(sum(record.status is Status.SKIPPED for record in records)),
        "time": f"{sum(record.duration_ms for record in records) / 1000:.3f}",
    }


def _add_case(suite: ET.Element, record: ScenarioRecord, view: BundleView) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(record.feature),
        name=_clean(record.name),
        file=_clean(record.uri),
        line=str(record.line),
        time=f"{record.duration_ms / 1000:.3f}",
    )
    if record.status in _FAILED:
        error = record.error
        failure = ET.SubElement(
            case, "failure", type=error.type if error else "", message=_clean(error.message if error else "")
        )
        failure.text = _clean(error.trace if error else "")
        tails = [f"--- {name}\n{view.log_tail(name)}" for name in record.logs]
        if tails:
            ET.SubElement(case, "system-out").text = _clean("\n".join(tails))
    elif record.status is Status.SKIPPED:
        ET.SubElement(case, "skipped", message=_clean(record.reason))


def _clean(text: str) -> str:
    """Drop what XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
