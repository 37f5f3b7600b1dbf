"""When a replica starts again: what it has been through, the waits that follow from it, and its turn to be on trial."""

import asyncio
from collections.abc import Callable

from skep.hive.crash import Gone
from skep.hive.node import Node
from skep.lifecycle.replica import ReplicaEvent
from skep.policy import restart
from skep.policy.breaker import BreakerState
from skep.policy.restart import Action, Crash, History, Verdict


class Restarting:
    """One replica's. `trial` and `judge` are its pool's; `learned` is called whenever the history has changed."""

    def __init__(
        self,
        node: Node,
        history: History,
        *,
        trial: asyncio.Lock,
        judge: Callable[[Crash], Verdict],
        learned: Callable[[], None],
    ) -> None:
        self.history = history
        self.verdict: Verdict | None = None
        self._node, self._trial, self._judge, self._learned = node, trial, judge, learned
        self._again = asyncio.Event()
        self._on_trial = False

    def reset(self) -> None:
        """Forgive everything, and end the wait that runs."""
        self.history = restart.reset(self.history)
        self._again.set()

    def note_stable(self, ready_s: float) -> None:
        """Credit the time that it has been ready: a trial that holds closes the breaker."""
        before = self.history
        self.history = restart.ran(before, ready_s=ready_s, limits=self._node.settings.restart)
        if self.history != before:
            self._learned()
        if self.history.breaker_state is BreakerState.CLOSED:
            self.settle_trial()

    async def wait_for_the_first(self) -> None:
        """With a history taken up from an earlier hive: wait until its breaker lets this start through, on trial."""
        wait_s = restart.due_s(self.history) - self._node.clock()
        if wait_s > 0:
            await self._pause(wait_s)
        if self.history.breaker_state is not BreakerState.CLOSED:
            await self._take_trial()
            self._note_try()

    def judge(self, gone: Gone) -> Verdict:
        """Ask the policy what becomes of it, now that it is gone."""
        self._again.clear()
        self.verdict = self._judge(
            Crash(
                reason=gone.reason,
                ready_s=gone.ready_s,
                now_s=self._node.clock(),
                jitter=self._node.rng.uniform(-1, 1),
            )
        )
        return self.verdict

    async def wait_for_the_next(self, verdict: Verdict) -> ReplicaEvent:
        """Wait as the verdict says, and return the event that begins the next life."""
        is_reset = await self._pause(verdict.delay_s)
        event = ReplicaEvent.RESTART
        if verdict.action is Action.HOLD:
            event = ReplicaEvent.RESET if is_reset else ReplicaEvent.TRIAL
        if event is ReplicaEvent.TRIAL:
            await self._take_trial()
        self._note_try()
        return event

    def settle_trial(self) -> None:
        """Let another replica of the pool be on trial: this one held, or is gone."""
        if self._on_trial:
            self._on_trial = False
            self._trial.release()

    async def _pause(self, delay_s: float) -> bool:
        """Wait for the delay, or for a reset; True when it was a reset."""
        try:
            async with asyncio.timeout(delay_s):
                await self._again.wait()
        except TimeoutError:
            return False
        return True

    def _note_try(self) -> None:
        self.history = restart.tried(self.history)
        self._learned()

    async def _take_trial(self) -> None:
        """Wait until no other replica of the pool is on trial."""
        await self._trial.acquire()
        self._on_trial = True
