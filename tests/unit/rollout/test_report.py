"""What a run says of itself: the fields that scripts read, and figures that add up."""

import msgspec

from skep.rollout.report import Drift, HostOutcome, HostReport, StepReport, SyncReport, summarize


def test_the_report_has_every_field_that_scripts_read() -> None:
    fields = {field.name for field in msgspec.structs.fields(SyncReport)}
    kinds = [f"hives_{kind}" for kind in ("installed", "already_installed", "removed", "failed")]
    kinds += [f"workers_{kind}" for kind in ("installed", "already_installed", "removed", "failed")]
    assert fields >= {*kinds, "duration_s", "hives"}
    assert {field.name for field in msgspec.structs.fields(HostReport)} >= {
        *("alias", "status", "workers", "steps", "error")
    }
    assert {field.name for field in msgspec.structs.fields(StepReport)} >= {"name", "seconds", "outcome"}
    assert {field.name for field in msgspec.structs.fields(Drift)} == {"hive", "issue", "details"}


def test_engines_are_counted_as_brought_as_found_or_as_on_a_host_that_failed() -> None:
    rows = [
        HostReport(alias="new", status=HostOutcome.INSTALLED, workers=("a", "b"), workers_removed=("c",)),
        HostReport(alias="more", status=HostOutcome.INSTALLED, workers=("b",)),
        HostReport(alias="same", status=HostOutcome.ALREADY),
        HostReport(alias="down", status=HostOutcome.UNKNOWN),
        HostReport(alias="bad", status=HostOutcome.FAILED),
        HostReport(alias="back", status=HostOutcome.ROLLED_BACK),
        HostReport(alias="gone", status=HostOutcome.REMOVED),
    ]
    declared = {row.alias: 2 for row in rows if row.alias != "gone"}
    report = summarize(rows, 1.0, workers_declared=declared)
    assert (report.workers_installed, report.workers_already_installed) == (3, 3)
    assert (report.workers_removed, report.workers_failed) == (1, 4)


def test_a_dry_run_has_brought_nothing() -> None:
    rows = [HostReport(alias="a", status=HostOutcome.PLANNED, workers=("x",), workers_removed=("y",))]
    report = summarize(rows, 1.0, workers_declared={"a": 1})
    assert (report.workers_installed, report.workers_already_installed, report.workers_removed) == (0, 0, 0)


def test_the_metrics_add_up() -> None:
    def step(name: str, seconds: float) -> StepReport:
        return StepReport(name=name, outcome="done", seconds=seconds)

    rows = [
        HostReport(
            alias="a",
            status=HostOutcome.INSTALLED,
            steps=(step("send", 1), step("clone", 2), step("build", 4), step("verify", 8)),
            seconds=16,
            retries=2,
        ),
        HostReport(alias="b", status=HostOutcome.FAILED, seconds=4, error="x", error_code="step_failed"),
        HostReport(
            alias="c", status=HostOutcome.FAILED, seconds=0, error="x", error_code="step_failed", retries=1
        ),
        HostReport(alias="d", status=HostOutcome.ALREADY),
    ]
    report = summarize(rows, 10.0, workers_declared={})
    metrics = report.metrics
    assert (metrics.send_s, metrics.clone_s, metrics.build_s) == (1, 2, 4)
    assert (report.duration_s, report.sequential_s, metrics.speed_up) == (10.0, 20, 2.0)
    assert (metrics.success_rate, metrics.failure_modes) == (0.5, {"step_failed": 2})
    assert (report.retries, metrics.recovered) == (3, 1)
