import json
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from skep.errors.proof import BundleClosed, BundleNotFound, BundleWriteFailed, InvalidRunId, RunIdTaken
from skep.proof import facts
from skep.proof.identity import new_run_id
from skep.proof.journal import LINE_BYTES_MAX, Journal
from skep.proof.reading import list_bundles, read_bundle
from skep.proof.records import Kind, Outcome, Status
from skep.proof.verify import Verdict, verify_bundle

FILES = {
    "scenarios.ndjson", "steps.ndjson", "metadata.json", "seeds.txt", "messages.ndjson", "junit.xml", "resources.ndjson",
    "index.html", "attestation.json", "logs",
}  # fmt: skip


def test_a_finished_bundle_has_every_file_and_is_intact(finished) -> None:
    assert {path.name for path in finished.folder.iterdir()} == FILES
    assert verify_bundle(finished.folder).verdict is Verdict.INTACT
    view = read_bundle(finished.folder)
    assert view.outcome is Outcome.FAILED
    assert (view.metadata.counts.passed, view.metadata.counts.failed) == (2, 1)
    assert view.seeds["f.feature:2"] == 2


def test_each_record_is_on_disk_when_the_call_returns(start, fill_bundle) -> None:
    bundle = start()
    for name in ("scenarios", "steps"):
        assert (bundle.folder / f"{name}.ndjson").read_text().count("\n") == 1
    fill_bundle(bundle, count=2)
    view = read_bundle(bundle.folder)
    assert [record.status for record in view.scenarios] == [Status.PASSED, Status.PASSED]
    assert len(view.steps) == 2
    assert verify_bundle(bundle.folder).verdict is Verdict.PARTIAL


def test_a_killed_writer_leaves_a_valid_partial_bundle(tmp_path) -> None:
    code = f"""
import sys
from pathlib import Path
from skep.proof.bundle import Bundle
from skep.proof.records import Kind, ScenarioRecord, Status, StepRecord
bundle = Bundle.create(Path({str(tmp_path)!r}), kind=Kind.BDD, run_id="killed")
bundle.scenario(ScenarioRecord(id="a:1", feature="F", name="n", status=Status.PASSED, duration_ms=1.0))
bundle.step(StepRecord(scenario="b:2", index=0, keyword="Given", text="t", status=Status.PASSED))
print("ready", flush=True)
import time; time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    folder = tmp_path / "bdd" / "killed"
    result = verify_bundle(folder)
    assert result.verdict is Verdict.PARTIAL
    assert not result.problems
    assert "was running: b:2" in result.notes
    ET.parse(folder / "junit.xml")
    for line in (folder / "messages.ndjson").read_text().splitlines():
        json.loads(line)
    assert "Partial" in (folder / "index.html").read_text()


def test_a_record_that_is_still_being_written_is_left_out_by_readers(start, fill_bundle) -> None:
    bundle = start()
    fill_bundle(bundle, count=1)
    with (bundle.folder / "scenarios.ndjson").open("ab") as file:
        file.write(b'{"id":"half')
    view = read_bundle(bundle.folder)
    assert len(view.scenarios) == 1
    assert not view.problems


@pytest.mark.parametrize("name", [*sorted(FILES - {"logs"}), "logs/hive.log"])
def test_a_changed_byte_is_found_in_every_file(finished, name: str) -> None:
    path = finished.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    result = verify_bundle(finished.folder)
    assert result.verdict is Verdict.ALTERED, name
    assert any(name in problem for problem in result.problems), result.problems


def test_added_and_missing_files_are_found(finished) -> None:
    (finished.folder / "logs" / "more.log").write_text("x")
    (finished.folder / "steps.ndjson").unlink()
    problems = verify_bundle(finished.folder).problems
    assert "logs/more.log was added" in problems
    assert "steps.ndjson is missing" in problems


def test_a_bundle_is_never_overwritten_nor_written_after_its_end(start) -> None:
    bundle = start(run_id="mine")
    with pytest.raises(RunIdTaken):
        start(run_id="mine")
    bundle.finish()
    with pytest.raises(BundleClosed):
        bundle.finish()


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", "a b", "x" * 101])
def test_a_run_id_that_cannot_name_a_folder_is_refused(start, bad: str) -> None:
    if bad:
        with pytest.raises(InvalidRunId):
            start(run_id=bad)
    assert new_run_id(at=0.0, salt=bad).startswith("19700101-000000-")


def test_two_runs_of_one_second_differ() -> None:
    assert new_run_id(at=1.0, salt="a") != new_run_id(at=1.0, salt="b")


def test_metadata_holds_no_secret(monkeypatch, start) -> None:
    monkeypatch.setenv("SKEP_WORKER_TOKEN", "hush-hush")
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    monkeypatch.setenv("SKEP_RUN_ID", "r1")
    bundle = start()
    text = (bundle.folder / "metadata.json").read_text()
    assert "hush-hush" not in text
    assert bundle.metadata.environment["SKEP_RUN_ID"] == "r1"
    assert not [name for name in facts.ENVIRONMENT_ALLOWED if name.endswith(("TOKEN", "KEY", "SECRET"))]


def test_our_own_files_say_that_they_are_generated(finished) -> None:
    for name in ("scenarios.ndjson", "steps.ndjson", "resources.ndjson", "seeds.txt"):
        assert "generated" in (finished.folder / name).read_text().splitlines()[0], name
    assert "generated_by" in json.loads((finished.folder / "metadata.json").read_text())


def test_junit_and_page_escape_what_tests_say(finished) -> None:
    root = ET.parse(finished.folder / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "1 != <2>\ufffd"
    assert "the last words" in root.findtext(".//system-out", "")
    page = (finished.folder / "index.html").read_text()
    assert "F <script>" not in page
    assert "the last words" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_statement_has_in_totos_shape(finished) -> None:
    statement = json.loads((finished.folder / "attestation.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == "FAILED"
    assert statement["predicate"]["failedTests"] == ["f.feature:1"]
    assert all(len(subject["digest"]["sha256"]) == 64 for subject in statement["subject"])


def test_bundles_are_listed_newest_first_and_other_folders_passed_over(start, tmp_path) -> None:
    first, second = start(run_id="a"), start(run_id="b")
    (tmp_path / "proof" / "bdd" / "junk").mkdir()
    assert [view.metadata.run_id for view in list_bundles(tmp_path / "proof")] == ["b", "a"]
    first.close()
    second.close()
    with pytest.raises(BundleNotFound):
        read_bundle(tmp_path)


def test_a_disk_that_is_full_is_an_error_and_not_a_lost_record() -> None:
    full = Journal.__new__(Journal)
    full.path, full._fd, full._torn = None, os.open("/dev/full", os.O_WRONLY), False
    with pytest.raises(BundleWriteFailed):
        full.append(b"x")
    with pytest.raises(BundleWriteFailed):
        full.append(b"x" * LINE_BYTES_MAX)
    full.close()
    full.close()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_run_can_leave_a_bundle(start, kind: Kind) -> None:
    bundle = start(kind=kind)
    bundle.finish()
    assert verify_bundle(bundle.folder).verdict is Verdict.INTACT
