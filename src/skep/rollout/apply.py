"""One host brought to its plan: read, plan, send, run; each step's time and end taken from the host's own words."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from skep.errors.rollout import ConnectionLost, HostBusy, HostChanged, StepFailed
from skep.rollout.facts import HostFacts, parse, probe_script
from skep.rollout.plan import HostPlan
from skep.rollout.report import StepReport
from skep.rollout.steps import (
    EXIT_BUSY,
    EXIT_CHANGED,
    EXIT_STEP_FAILED,
    EXIT_UNHEARD,
    Receive,
    Upload,
    render,
)
from skep.rollout.transport import Result, Transport

PROBE_S_MAX = 60.0
SEND_S_MAX = 1800.0
TAIL_LINES = 20

OnStep = Callable[[str, str], None]  # (step's name, "begin" | "done" | "failed")


async def read_facts(transport: Transport, alias: str) -> HostFacts:
    """Probe a host in one round trip. Raises: FactsUnreadable, ConnectionLost, StepLimitExceeded."""
    nonce = secrets.token_hex(8)
    result = await transport.run(probe_script(nonce), limit_s=PROBE_S_MAX, is_brief=True)
    return parse(result.stdout, nonce=nonce, alias=alias)


class StepLog:
    """Follows the script's marks, line by line, as they come."""

    def __init__(
        self, nonce: str, on_step: OnStep, clock: Callable[[], float], uploads: Sequence[Path] = ()
    ) -> None:
        self._nonce, self._on_step, self._clock = nonce, on_step, clock
        self._uploads = deque(uploads)
        self._began_s = 0.0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.done: list[StepReport] = []

    def __call__(self, line: str) -> str | Path | None:
        """Take one line of the script's output. Returns the answer to a host that asks whether to go on, or for a file."""
        mark, _, rest = line.partition(" ")
        if mark != self._nonce:
            self.tail.append(line)
            return None
        if rest == "ask":
            return f"{self._nonce} go"
        verb, _, name = rest.partition(" ")
        name = name.split(" ")[0]
        if verb == "begin":
            self._began_s = self._clock()
            self.tail.clear()
        elif verb in {"done", "failed"}:
            self.done.append(
                StepReport(name=name, outcome=verb, seconds=round(self._clock() - self._began_s, 4))
            )
        if name:
            self._on_step(name, verb)
        return self._uploads.popleft() if rest == "begin send" and self._uploads else None


async def perform(
    transport: Transport,
    plan: HostPlan,
    facts: HostFacts,
    *,
    on_step: OnStep,
    clock: Callable[[], float] = time.monotonic,
) -> list[StepReport]:
    """Do what a plan says.

    Raises: HostBusy, HostChanged (both leave the host untouched), StepFailed (with `steps` and `log_tail`),
    ConnectionLost, StepLimitExceeded. Whatever is raised, the host has a whole old or a whole new version.
    """
    receives = [await asyncio.to_thread(_measured, upload) for upload in plan.uploads]
    nonce = secrets.token_hex(8)
    log = StepLog(nonce, on_step, clock, [Path(upload.source) for upload in plan.uploads])
    script = render(
        plan.steps,
        nonce=nonce,
        manifest_text=facts.manifest_text,
        receives=receives,
        serves=bool(facts.current),
    )
    limit_s = sum(step.limit_s for step in plan.steps) + SEND_S_MAX * len(receives)
    try:
        result = await transport.run(script, limit_s=limit_s, on_line=log)
    except ConnectionLost as error:
        error.facts["steps"] = log.done
        raise
    _check(plan, result, log)
    return log.done


def _measured(upload: Upload) -> Receive:
    return Receive(upload=upload, size_bytes=Path(upload.source).stat().st_size)


def _check(plan: HostPlan, result: Result, log: StepLog) -> None:
    if result.exit_status == EXIT_BUSY:
        raise HostBusy(
            f"{plan.alias}: another sync is working on this host; run it again later", alias=plan.alias
        )
    if result.exit_status == EXIT_CHANGED:
        raise HostChanged(
            f"{plan.alias}: the host changed while it was being read; run it again", alias=plan.alias
        )
    if result.exit_status == EXIT_UNHEARD:
        raise ConnectionLost(
            f"{plan.alias}: the host no longer heard us, and kept its version", alias=plan.alias
        )
    done = [report.name for report in log.done if report.outcome == "done"]
    if result.exit_status == 0 and done == [
        *("send" for _ in plan.uploads),
        *(step.name for step in plan.steps),
    ]:
        return
    tail = "\n".join(log.tail) or result.stderr.strip()[-1000:]
    step = next((report.name for report in log.done if report.outcome == "failed"), "script")
    ended = "" if result.exit_status == EXIT_STEP_FAILED else f" (exit {result.exit_status})"
    raise StepFailed(
        f"{plan.alias}: {step} failed{ended}: {tail.splitlines()[-1] if tail else 'no output'}",
        alias=plan.alias,
        step=step,
        log_tail=tail,
        steps=log.done,
    )


def planned(plan: HostPlan) -> tuple[StepReport, ...]:
    """Return a plan's steps as a dry run tells them."""
    sends = [StepReport(name="send", outcome="planned", detail=upload.target) for upload in plan.uploads]
    return (
        *sends,
        *(StepReport(name=step.name, outcome="planned", detail=step.detail) for step in plan.steps),
    )


def redacted(plan: HostPlan) -> HostPlan:
    """Return the plan without scripts, for printing: they hold file contents."""
    return msgspec.structs.replace(
        plan, steps=tuple(msgspec.structs.replace(step, script="") for step in plan.steps)
    )
