"""The logits that a request was sampled from, under conditions that may or may not change them, bit for bit.

`logits_under(condition)` runs one greedy request in this process, `in_a_process` in a fresh one.
"""

import io
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.engine import Engine
from skep.runtime.open import open_backend
from skep.runtime.options import DETERMINISTIC_CHUNK_ROWS, EngineOptions
from skep.runtime.request import Event, GenerationRequest, Started
from skep.runtime.sampling import SamplingParams

PROMPT = "tell me everything about the bees, the hive, the honey and the queen. count from 1 to 20. " * 4
SUBJECT_SEED, WARM_SEED, NEIGHBOUR_SEED = 7, 1, 100
PROCESS_S_MAX = 300.0

Logits = npt.NDArray[np.float32]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Under what the request runs. `warm`: another prompt that begins the same was computed before.

    `cancels`: with every token of it one of the neighbours is cancelled, wherever that one is.
    """

    model: str
    backend: str = "llama"
    tokens: int = 48
    deterministic: bool = False
    unified_cache: bool = False
    neighbours: int = 0
    warm: bool = False
    cancels: bool = False
    batch_rows_max: int = 256
    chunk_rows: int = DETERMINISTIC_CHUNK_ROWS
    slots: int = 33


class Recorder:
    """A model whose sessions note the logits that each job sampled from, by the job's seed."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.seen: dict[int, list[Logits]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the model's."""
        return getattr(self._model, name)

    def open_session(self, options: SessionOptions) -> "RecordingSession":
        """Return a session that records."""
        return RecordingSession(self._model.open_session(options), self.seen)


class RecordingSession:
    """A session that notes what it samples from."""

    def __init__(self, session: Any, seen: dict[int, list[Logits]]) -> None:
        self._session, self._seen = session, seen
        self._seeds: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything else is the session's."""
        return getattr(self._session, name)

    def make_sampler(self, params: SamplingParams, *, prompt: Any = ()) -> Any:
        """Return the session's sampler, known by its seed."""
        sampler = self._session.make_sampler(params, prompt=prompt)
        self._seeds[id(sampler)] = params.seed or 0
        return sampler

    def sample(self, sampler: Any, row: int) -> int:
        """Note the logits, and sample."""
        self._seen[self._seeds[id(sampler)]].append(self._session.logits(row).copy())
        return int(self._session.sample(sampler, row))


def logits_under(condition: Condition) -> Logits:
    """Return (tokens, vocabulary): what the request sampled from, token by token. Raises: as loading and decoding do."""
    model = open_backend(condition.backend).load(Path(condition.model), LoadOptions())
    try:
        recorder, chooser = Recorder(model), random.Random(condition.neighbours)  # noqa: S311 - a test's choices
        prompt = tuple(model.tokenize(PROMPT))
        with Engine(recorder, _options(condition)) as engine:
            if condition.warm:
                list(engine.submit(_request("warm", (*prompt[:-20], 5, 6), 8, WARM_SEED)))
            request = _request("subject", prompt, condition.tokens, SUBJECT_SEED)
            # Cancels are of interest while it runs: then it comes first. Else it comes when the others fill the slots.
            subject = engine.submit(request) if condition.cancels else None
            others = [engine.submit(_neighbour(at, chooser, condition)) for at in range(condition.neighbours)]
            chooser.shuffle(others)
            events: list[Event] = []
            for event in subject or engine.submit(request):
                if condition.cancels and len(events) < len(others):
                    others[len(events)].cancel()
                events.append(event)
            for other in others:
                other.cancel()
                list(other)
    finally:
        model.close()
    assert isinstance(events[0], Started)
    assert (events[0].cached_tokens > 0) == condition.warm
    return np.stack(recorder.seen[SUBJECT_SEED])


def in_a_process(condition: Condition) -> Logits:
    """Return the same from a process of its own: what a restart gives. Raises: CalledProcessError, TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, "-m", "skep.testkit.logits", msgspec.json.encode(condition).decode()],
        stdout=subprocess.PIPE,
        check=True,
        timeout=PROCESS_S_MAX,
    )
    found: Logits = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return found


def _options(condition: Condition) -> EngineOptions:
    session = SessionOptions(
        sequences=condition.slots,
        context=1024,
        batch_rows_max=condition.batch_rows_max,
        threads=1,
        threads_batch=1,
        unified_cache=condition.unified_cache,
    )
    return EngineOptions(
        session=session,
        deterministic=condition.deterministic,
        chunk_rows=condition.chunk_rows,
        queue_max=64,
        events_max=2048,
    )


def _neighbour(at: int, chooser: random.Random, condition: Condition) -> GenerationRequest:
    prompt = tuple(chooser.randrange(5, 250) for _ in range(chooser.randint(5, 300)))
    return _request(f"n{at}", prompt, condition.tokens * 3, NEIGHBOUR_SEED + at, temperature=1.5)


def _request(
    name: str, prompt: tuple[int, ...], count: int, seed: int, *, temperature: float = 0.0
) -> GenerationRequest:
    sampling = SamplingParams(temperature=temperature, seed=seed)
    return GenerationRequest(job_id=name, prompt=prompt, max_tokens=count, sampling=sampling, ignore_end=True)


if __name__ == "__main__":
    answer = io.BytesIO()
    np.save(answer, logits_under(msgspec.json.decode(sys.argv[1], type=Condition)))
    sys.stdout.buffer.write(answer.getvalue())
