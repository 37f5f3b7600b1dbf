"""From a trace to what it leads to: simulate it, read what it asks for, reward it. Here, or in processes beside.

A trace's outlook is a fact, so where it was computed does not show; processes only make a batch of them come sooner.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Final

import msgspec

from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.observation import Observation
from skep.arena.policies.base import Outlook
from skep.arena.rewards import RewardFunction, RewardInput, find_reward
from skep.arena.safeguards import Safeguards
from skep.arena.scenarios import Scenario
from skep.arena.trace.trace import Trace
from skep.arena.workload import Resources, WorkloadRef, find_resources
from skep.errors import SkepError, Unavailable

REPLY_S_MAX: Final = 120.0
"""How long a process may take for its share of one batch; its start is within it."""
JOIN_S_MAX: Final = 5.0
Look = Callable[[Trace], Outlook]
_Asked = tuple[int, tuple[bytes, ...]]


class Looking:
    """Makes the outlooks of one workload's variants."""

    def __init__(
        self,
        workload: WorkloadRef,
        target: int,
        simulate: Callable[[Trace], Observation],
        *,
        reward: RewardFunction,
        safeguards: Safeguards = Safeguards(),  # noqa: B008 - a frozen value
        reference: Resources | None = None,
    ) -> None:
        self.workload, self.target, self.safeguards = workload, target, safeguards
        self._simulate, self._reward, self._reference = simulate, reward, reference

    def __call__(self, trace: Trace) -> Outlook:
        """Simulate a trace. Raises: what the simulation raises."""
        seen, resources = self._simulate(trace), find_resources(trace, self.workload)
        given = RewardInput(
            observation=seen,
            resources=resources,
            target=self.target,
            reference=self._reference,
            safeguards=self.safeguards,
        )
        return Outlook(observation=seen, resources=resources, reward=self._reward(given).value)


class LookPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a process must know to look at the variants of these scenarios."""

    scenarios: tuple[Scenario, ...]
    reward: str
    safeguards: Safeguards
    cluster_seed: int

    def looking(self, number: int) -> Looking:
        """Return what looks at the variants of one scenario. Raises: UnknownName."""
        scenario = self.scenarios[number]
        driver = EmbeddedDriver(scenario.nodes)
        return Looking(
            scenario.workload,
            scenario.target,
            driver.simulator_of(scenario.workload, scenario.duration_s, self.cluster_seed),
            reward=find_reward(self.reward),
            safeguards=self.safeguards,
            reference=scenario.reference,
        )


class Lookers:
    """Looks at batches of traces on `processes` cores: this process, and the others beside it.

    They start with the first batch, and end with `close`, or when this process ends, however it does.
    """

    def __init__(self, plan: LookPlan, processes: int = 1) -> None:
        if processes < 1:
            raise ValueError(f"processes: 1 or more, not {processes}")
        self._plan, self._beside_count = plan, processes - 1
        self._here = _Here(plan)
        self._beside: list[_Beside] = []

    def look(self, asked: Sequence[tuple[int, Trace]]) -> list[Outlook]:
        """Return the outlooks of (scenario's number, trace), in their order. Raises: what simulating raises."""
        if self._beside_count and not self._beside:
            self._beside = [_Beside(self._plan, number) for number in range(self._beside_count)]
        try:
            found = self._shared(asked)
        except BaseException:
            self.close()  # An answer may be on its way; the next batch must not take it for its own.
            raise
        return [
            outlook if outlook is not None else self._here.look(*one)
            for one, outlook in zip(asked, found, strict=True)
        ]

    def _shared(self, asked: Sequence[tuple[int, Trace]]) -> list[Outlook | None]:
        found: list[Outlook | None] = [None] * len(asked)
        stride = len(self._beside) + 1
        asking = [(one, number) for number, one in enumerate(self._beside, 1) if asked[number::stride]]
        for one, number in asking:
            one.ask([(scenario, trace.events) for scenario, trace in asked[number::stride]])
        found[::stride] = [self._here.look_or_none(*one) for one in asked[::stride]]
        for one, number in asking:
            found[number::stride] = one.answered()
        return found

    def close(self) -> None:
        """End the processes."""
        for one in self._beside:
            one.close()
        self._beside = []


class _Here:
    """Looks in this process."""

    def __init__(self, plan: LookPlan) -> None:
        self._plan, self._lookings = plan, dict[int, Looking]()

    def look(self, number: int, trace: Trace) -> Outlook:
        if number not in self._lookings:
            self._lookings[number] = self._plan.looking(number)
        return self._lookings[number](trace)

    def look_or_none(self, number: int, trace: Trace) -> Outlook | None:
        """Look; None where that fails: who asked looks again where it can raise."""
        try:
            return self.look(number, trace)
        except SkepError:
            return None

    def answer(self, number: int, events: tuple[bytes, ...]) -> Outlook | None:
        """Look at a trace that another process sent."""
        return self.look_or_none(number, self._plan.scenarios[number].trace.with_raw(events))


class _Beside:
    """One process that looks for another."""

    def __init__(self, plan: LookPlan, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, plan), name=f"skep-arena-look-{number}", daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, asked: list[_Asked]) -> None:
        """Send a share. Raises: Unavailable."""
        try:
            self._pipe.send_bytes(msgspec.msgpack.encode(asked))
        except OSError as error:
            raise self._lost() from error

    def answered(self) -> list[Outlook | None]:
        """Return the answer to the last share. Raises: Unavailable."""
        try:
            if not self._pipe.poll(REPLY_S_MAX):
                raise self._lost()
            return msgspec.msgpack.decode(self._pipe.recv_bytes(), type=list[Outlook | None])
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> Unavailable:
        return Unavailable(
            f"the process {self._process.name} that simulates for this environment was lost; make a new environment"
        )

    def close(self) -> None:
        self._pipe.close()
        self._process.join(JOIN_S_MAX)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(pipe: Connection, plan: LookPlan) -> None:
    """Look at what comes until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    here, decoder = _Here(plan), msgspec.msgpack.Decoder(list[_Asked])
    try:
        while True:
            asked = decoder.decode(pipe.recv_bytes())
            pipe.send_bytes(msgspec.msgpack.encode([here.answer(*one) for one in asked]))
    except (EOFError, OSError):
        return
