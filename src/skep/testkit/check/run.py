"""A run: the chosen clauses one after the other, within a budget, with a bundle of the evidence."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import msgspec

import skep.testkit.check.clauses  # noqa: F401 - registers them
from skep.errors import InvalidConfig, InvalidInput
from skep.proof.bundle import Bundle
from skep.proof.records import Failure, Kind, ScenarioRecord, Status
from skep.proof.records import Outcome as BundleOutcome
from skep.testkit.check.clause import Clause, chosen
from skep.testkit.check.probe import MODELS, Probe, Target
from skep.testkit.check.process import running
from skep.testkit.check.verdict import Broken, Finding, NotObservable, Outcome, Severity, Verdict

OnFinding = Callable[[Finding], None]


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to check and how. `budget_s` is for all of it: what it does not reach is NOT-OBSERVABLE, and says so."""

    target: Target
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    budget_s: float = 600.0
    is_chaos: bool = False
    is_strict: bool = False
    command: str = ""
    out: str = ""
    run_id: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    url: str
    model: str
    findings: tuple[Finding, ...]
    bundle: str = ""

    def failures(self, *, is_strict: bool) -> list[Finding]:
        """Return what makes the run a failure."""
        return [
            one
            for one in self.findings
            if one.verdict is Verdict.FAIL and (is_strict or one.severity is Severity.MUST)
        ]


def normal_url(text: str) -> str:
    """Return a server's address without `/v1` and slashes at its end. Raises: InvalidConfig."""
    url = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    parts = urlsplit(url)
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise InvalidConfig(f"{text!r} is no server's URL, for example http://127.0.0.1:8080", url=text)
    return url


async def check(options: CheckOptions, *, on_finding: OnFinding = lambda _: None) -> Report:
    """Run the clauses and return what they found. Raises: InvalidInput when there is no server to check at all."""
    clauses = chosen(options.only, options.skip)
    bundle = _bundle(options)
    findings: list[Finding] = []
    try:
        async with _logging(bundle) as log, _probe(options, log) as probe:
            deadline = time.monotonic() + options.budget_s
            for one in clauses:
                found = await _judge(one, probe, options, left_s=deadline - time.monotonic())
                findings.append(found)
                if bundle:
                    bundle.scenario(_record(found))
                on_finding(found)
            report = Report(
                url=probe.target.url,
                model=probe.target.model,
                findings=tuple(findings),
                bundle=str(bundle.folder) if bundle else "",
            )
        if bundle:
            failed = report.failures(is_strict=options.is_strict)
            bundle.finish(BundleOutcome.FAILED if failed else BundleOutcome.PASSED)
        return report
    finally:
        if bundle:
            bundle.close()


@asynccontextmanager
async def _logging(bundle: Bundle | None) -> AsyncGenerator[Path]:
    """Yield where a server of ours writes its log: into the bundle, else where it leaves nothing behind."""
    if bundle:
        yield bundle.log_path("server.log")
        return
    with TemporaryDirectory(prefix="skep-check-") as folder:
        yield Path(folder) / "server.log"


@asynccontextmanager
async def _probe(options: CheckOptions, log: Path) -> AsyncGenerator[Probe]:
    if not options.command:
        async with Probe.open(options.target) as probe:
            await _find_model(probe)
            yield probe
        return
    try:
        async with running(options.command, log, url=options.target.url) as process:
            target = msgspec.structs.replace(options.target, url=process.url)
            async with Probe.open(target, process) as probe:
                await _find_model(probe)
                yield probe
    except Broken as error:
        raise InvalidInput(f"{error.detail}\n{error.trace}".strip(), url=options.target.url) from error


async def _find_model(probe: Probe) -> None:
    """Take the first model that the server lists, unless one was named. Raises: InvalidInput."""
    try:
        answer = await probe.send("GET", MODELS)
    except Broken as error:
        raise InvalidInput(
            f"{probe.target.url}{MODELS}: {error.detail}. Is a server running there?", url=probe.target.url
        ) from error
    if probe.target.model:
        return
    try:
        listed = [one["id"] for one in answer.json().get("data") or []]
    except (Broken, KeyError, TypeError):
        listed = []
    if not listed:
        raise InvalidInput(
            f"{probe.target.url}{MODELS} answers {answer.status} and lists no model: name one with --model",
            url=probe.target.url,
            status=answer.status,
        )
    probe.target = msgspec.structs.replace(probe.target, model=str(listed[0]))


async def _judge(one: Clause, probe: Probe, options: CheckOptions, *, left_s: float) -> Finding:
    """Run one clause; whatever it meets is a verdict."""
    began = time.monotonic()
    detail, trace, verdict = "", "", Verdict.PASS
    try:
        if one.is_chaos and not options.is_chaos:
            raise NotObservable("left out: it floods or stalls the server; ask for it with --chaos")
        if one.needs_process and probe.process is None:
            raise NotObservable("left out: needs --command, to start and end the server")
        if left_s <= 0:
            raise NotObservable(f"left out: the budget of {options.budget_s:g} s was spent")
        detail = await one.look(probe) or ""
    except Outcome as error:
        verdict, detail, trace = error.verdict, error.detail, error.trace
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        # A shape that no clause foresaw: the server's answer is not OpenAI's.
        verdict, detail = Verdict.FAIL, f"the answer has not OpenAI's shape: {type(error).__name__}: {error}"
    return Finding(
        clause=one.id,
        area=one.area,
        rule=one.rule,
        severity=one.severity,
        source=one.source,
        verdict=verdict,
        detail=detail,
        trace=trace,
        duration_ms=(time.monotonic() - began) * 1000,
    )


def _bundle(options: CheckOptions) -> Bundle | None:
    if not options.out:
        return None
    told = {"url": options.target.url, "model": options.target.model, "command": options.command}
    return Bundle.create(
        Path(options.out),
        kind=Kind.CHECK,
        run_id=options.run_id or None,
        command=_command(options),
        options={name: value for name, value in told.items() if value},
    )


def _command(options: CheckOptions) -> Sequence[str]:
    """Return the command line as it could be given again, without the key."""
    return ("skep", "check", options.target.url, *(f"--only={one}" for one in options.only))


def _record(found: Finding) -> ScenarioRecord:
    status = {Verdict.PASS: Status.PASSED, Verdict.FAIL: Status.FAILED}.get(found.verdict, Status.SKIPPED)
    is_failed = found.verdict is Verdict.FAIL
    return ScenarioRecord(
        id=found.clause,
        feature=found.area,
        name=f"{found.clause}: {found.rule}",
        status=status,
        duration_ms=found.duration_ms,
        tags=(f"@{found.severity}", f"@{found.verdict}"),
        uri=found.source,
        started_at=time.time() - found.duration_ms / 1000,
        error=Failure(type=found.clause, message=found.detail, trace=found.trace) if is_failed else None,
        reason="" if is_failed else f"{found.verdict}: {found.detail}",
    )
