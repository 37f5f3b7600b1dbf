"""Any interleaving of submit, cancel, stall, interrupt, fault and step leaves the engine whole, and the text right."""

import importlib.util
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skep.errors.runtime import DecodeFailed
from skep.runtime import recovery
from skep.runtime.fake import FakeScript
from skep.runtime.integrity import violations
from skep.runtime.request import Failed, Finished, Started, Token

_spec = importlib.util.spec_from_file_location("runtime_bench", Path(__file__).with_name("conftest.py"))
_bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_bench)

PREFIXES = [b"", b"the hive ", b"the hive is full of bees and of honey and of wax, and "]
ENDS = [b"a", b"b", b"the queen sleeps", b"x" * 30]


class EngineMachine(RuleBasedStateMachine):
    """Readers read or stall, clients come and go, the cache is short, decodes are interrupted and fail."""

    @initialize(
        deterministic=st.booleans(),
        unified=st.booleans(),
        cells=st.sampled_from([0, 0, 130, 200]),
        share=st.sampled_from([0.0, 0.5, 1.0]),
        reuse=st.booleans(),
        noise=st.booleans(),
    )
    def begin(
        self, *, deterministic: bool, unified: bool, cells: int, share: float, reuse: bool, noise: bool
    ) -> None:
        self.script = FakeScript(cache_cells=cells, batch_noise=noise)
        self.bench = _bench.Bench(
            self.script,
            deterministic=deterministic,
            unified_cache=unified and not deterministic,
            prefill_share=share,
            reuse_prefix=reuse,
            reuse_prefix_min=4,
            chunk_rows=8,
            events_max=6,
            stall_s=5.0,
        )
        self.is_faulty = False

    @rule(
        prefix=st.sampled_from(PREFIXES),
        end=st.sampled_from(ENDS),
        max_tokens=st.integers(1, 30),
        deadline_s=st.sampled_from([3.0, 1000.0]),
        client=st.sampled_from(["", "a", "b"]),
        stop=st.sampled_from([(), ("e",), ("qq", " ,")]),
    )
    def submit(self, prefix: bytes, end: bytes, stop: tuple[str, ...], **changes: Any) -> None:
        if len(self.bench.core.jobs) < 12:
            self.bench.submit(tuple(prefix + end), ignore_end=True, stop=stop, **changes)

    @precondition(lambda self: self.bench.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.bench.core.cancel(data.draw(st.sampled_from(self.bench.jobs)))

    @precondition(lambda self: self.bench.jobs)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.bench.read(data.draw(st.sampled_from(self.bench.jobs)))

    @rule(steps=st.integers(1, 8))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.bench.step()

    @rule()
    def interrupted_step(self) -> None:
        self.bench.core.session.interrupt()
        self.bench.step()
        self.bench.core.session.resume()

    @rule(seconds=st.sampled_from([0.1, 2.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds

    @precondition(lambda self: not self.is_faulty)
    @rule()
    def fault(self) -> None:
        self.is_faulty = True
        recovery.reopen(self.bench.core, DecodeFailed("as the test says"))

    @invariant()
    def is_whole(self) -> None:
        if hasattr(self, "bench"):
            assert violations(self.bench.core) == []

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        bench.finish()
        assert bench.core.jobs == {}
        assert all(slot.sequence is None for slot in bench.core.roster.slots)
        for job in bench.jobs:
            self._check(job)
        bench.close()

    def _check(self, job: Any) -> None:
        events = self.bench.events[job.id]
        ends = [event for event in events if isinstance(event, Finished | Failed)]
        assert events[-1:] == ends, "one terminal event, and it is the last"
        assert sum(isinstance(event, Started) for event in events) <= 1
        tokens = [event for event in events if isinstance(event, Token)]
        assert [token.index for token in tokens] == [
            sum(t.tokens for t in tokens[:at]) for at in range(len(tokens))
        ]
        text = "".join(token.text for token in tokens)
        expected = _bench.alone(self.script, job.request.prompt, job.max_tokens)
        cuts = [at + len(stop) for stop in job.request.stop if (at := expected.find(stop)) >= 0]
        if isinstance(ends[0], Finished):
            whole = expected
            if cuts:
                assert ends[0].stop_reason == "stop_sequence"
                whole = expected[: min(cuts)].removesuffix(ends[0].stop_matched)
            assert text == whole
        else:
            assert expected.startswith(text.removesuffix("�"))


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
