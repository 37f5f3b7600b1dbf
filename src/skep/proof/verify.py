"""Is a bundle what its run left? Every byte of it, or it says which file is not."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from skep.errors.proof import BundleUnreadable
from skep.proof import attestation
from skep.proof.reading import BundleView, read_bundle, read_envelopes
from skep.proof.records import Counts, Status


class Verdict(StrEnum):
    """What a bundle is worth. `partial` is honest evidence of a run that was cut off; `altered` is none."""

    INTACT = "intact"
    PARTIAL = "partial"
    ALTERED = "altered"


@dataclass(frozen=True)
class Verification:
    """The verdict with each reason for it."""

    verdict: Verdict
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verify_bundle(folder: Path) -> Verification:
    """Hold a bundle against its own attestation. Raises: BundleNotFound."""
    try:
        view = read_bundle(folder)
        problems = list(view.problems)
        read_envelopes(folder)
    except BundleUnreadable as error:
        return Verification(Verdict.ALTERED, (str(error),))
    path = folder / attestation.FILE
    if not view.metadata.complete:
        return _judge_partial(view, problems, has_statement=path.exists())
    problems += _counts_differ(view)
    if not path.exists():
        problems.append(f"{attestation.FILE} is missing, though the run says that it finished")
    else:
        problems += _digests_differ(view, path)
    return Verification(Verdict.ALTERED if problems else Verdict.INTACT, tuple(problems))


def _judge_partial(view: BundleView, problems: list[str], *, has_statement: bool) -> Verification:
    if has_statement:
        problems.append(f"{attestation.FILE} is there, though metadata.json says that the run never finished")
    notes = [f"the run never finished: {len(view.scenarios)} scenarios ended"]
    notes += [f"was running: {name}" for name in view.unfinished]
    return Verification(Verdict.ALTERED if problems else Verdict.PARTIAL, tuple(problems), tuple(notes))


def _counts_differ(view: BundleView) -> list[str]:
    statuses = [record.status for record in view.scenarios]
    counts = Counts(
        passed=statuses.count(Status.PASSED),
        failed=statuses.count(Status.FAILED) + statuses.count(Status.UNDEFINED),
        skipped=statuses.count(Status.SKIPPED),
    )
    if counts == view.metadata.counts:
        return []
    return [f"metadata.json counts {view.metadata.counts}, scenarios.ndjson holds {counts}"]


def _digests_differ(view: BundleView, path: Path) -> list[str]:
    written = path.read_bytes()
    if written == attestation.render_statement(view):
        return []
    try:
        recorded = _digests(json.loads(written))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{attestation.FILE} is not a statement"]
    present = {
        file.relative_to(view.folder).as_posix(): attestation.sha256_of(file)
        for file in attestation.bundle_files(view.folder)
    }
    tested = {each.name for each in view.metadata.subjects}
    problems = [
        f"{name} was changed" for name, digest in present.items() if recorded.get(name, digest) != digest
    ]
    problems += [f"{name} was added" for name in present if name not in recorded]
    problems += [f"{name} is missing" for name in recorded if name not in present and name not in tested]
    return problems or [f"{attestation.FILE} was changed"]


def _digests(statement: dict[str, Any]) -> dict[str, str]:
    return {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
