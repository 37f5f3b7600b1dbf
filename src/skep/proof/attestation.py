"""The in-toto statement of a bundle: predicate `test-result` v0.1, unsigned.

It is a pure function of the bundle's other files, so that `verify` can make it again and compare: a changed byte
is found wherever it is, in the statement too. Source: in-toto attestation framework, Statement v1.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from skep.proof.reading import BundleView
from skep.proof.records import Outcome, Status

FILE = "attestation.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
_RESULTS = {Outcome.PASSED: "PASSED", Outcome.FAILED: "FAILED"}


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_files(folder: Path) -> list[Path]:
    """Every file of a bundle but the statement itself and half-written temporary ones, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path != folder / FILE
        and not (path.name.startswith(".") and path.suffix == ".new")
    )


def statement(view: BundleView) -> dict[str, Any]:
    """Return the statement: subjects are the things under test and the bundle's files."""
    files = [
        {"name": path.relative_to(view.folder).as_posix(), "digest": {"sha256": sha256_of(path)}}
        for path in bundle_files(view.folder)
    ]
    tested = [{"name": each.name, "digest": {"sha256": each.sha256}} for each in view.metadata.subjects]

    def named(status: Status) -> list[str]:
        return sorted(record.id for record in view.scenarios if record.status is status)

    return {
        "_type": STATEMENT_TYPE,
        "subject": tested + files,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": _RESULTS.get(view.outcome, "WARNED"),
            "configuration": [file for file in files if file["name"] in {"metadata.json", "seeds.txt"}],
            "passedTests": named(Status.PASSED),
            "warnedTests": named(Status.SKIPPED),
            "failedTests": sorted(named(Status.FAILED) + named(Status.UNDEFINED)),
        },
    }


def render_statement(view: BundleView) -> bytes:
    """Return the statement's bytes, the same for the same bundle."""
    return json.dumps(statement(view), indent=1, ensure_ascii=False).encode() + b"\n"
