"""What changes the logits of a request, measured: its neighbours, a cached prefix, the batch size, a restart.

    .venv/bin/python benchmarks/determinism.py [--tokens N]

Every cell compares the logits from which each token of one greedy request was sampled with those of the same request
alone, cold, in a fresh process. Prints Markdown, for docs/runtime.md.
"""

import argparse
import concurrent.futures
import multiprocessing
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.engine import Engine
from skep.runtime.models import TINY, TINY_Q8
from skep.runtime.open import open_backend
from skep.runtime.options import EngineOptions
from skep.runtime.request import GenerationRequest
from skep.runtime.sampling import SamplingParams

PROMPT = "tell me everything about the bees, the hive, the honey and the queen. count from 1 to 20. " * 4
SUBJECT_SEED = 7
CONDITIONS = {
    "alone, in another process": {},
    "31 neighbours": {"neighbours": 31},
    "cached prefix": {"is_warm": True},
    "cached prefix and 31 neighbours": {"neighbours": 31, "is_warm": True},
    "another batch size": {"rows": 96},
    "another slot count": {"slots": 8},
}
MODES = {
    "F16, deterministic": (TINY, {"deterministic": True}),
    "Q8_0, deterministic": (TINY_Q8, {"deterministic": True}),
    "F16, default": (TINY, {}),
    "Q8_0, default": (TINY_Q8, {}),
    "F16, default, unified cache": (TINY, {"unified": True}),
    "Q8_0, default, unified cache": (TINY_Q8, {"unified": True}),
}


class Recorder:
    """A model whose sessions note the logits that each job sampled from, by the job's seed."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.seen: dict[int, list[np.ndarray]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def open_session(self, options: SessionOptions) -> Any:
        """Return a session that records."""
        return _RecordingSession(self._model.open_session(options), self.seen)


class _RecordingSession:
    def __init__(self, session: Any, seen: dict[int, list[np.ndarray]]) -> None:
        self._session, self._seen = session, seen
        self._seeds: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def make_sampler(self, params: SamplingParams, *, prompt: Any = ()) -> Any:
        sampler = self._session.make_sampler(params, prompt=prompt)
        self._seeds[id(sampler)] = params.seed or 0
        return sampler

    def sample(self, sampler: Any, row: int) -> int:
        self._seen[self._seeds[id(sampler)]].append(self._session.logits(row).copy())
        return int(self._session.sample(sampler, row))


def subject_logits(
    path: Path,
    *,
    tokens: int,
    deterministic: bool = False,
    unified: bool = False,
    neighbours: int = 0,
    is_warm: bool = False,
    rows: int = 256,
    slots: int = 32,
) -> np.ndarray:
    """Return (tokens, vocabulary): what the request under test sampled from."""
    model = open_backend("llama").load(path, LoadOptions())
    recorder, chooser = Recorder(model), random.Random(1)
    prompt = tuple(model.tokenize(PROMPT))
    session = SessionOptions(
        sequences=slots, context=1024, batch_rows_max=rows, threads=1, threads_batch=1, unified_cache=unified
    )
    options = EngineOptions(session=session, deterministic=deterministic, queue_max=64, events_max=2048)

    def request(
        name: str, text: tuple[int, ...], count: int, seed: int, temperature: float
    ) -> GenerationRequest:
        sampling = SamplingParams(temperature=temperature, seed=seed)
        return GenerationRequest(
            job_id=name, prompt=text, max_tokens=count, sampling=sampling, ignore_end=True
        )

    with Engine(recorder, options) as engine:
        if is_warm:
            list(engine.submit(request("warm", (*prompt[:-20], 5, 6), 8, 1, 0.0)))
        others = [
            engine.submit(
                request(
                    f"n{at}",
                    tuple(chooser.randrange(5, 400) for _ in range(chooser.randint(5, 300))),
                    tokens * 3,
                    100 + at,
                    1.5,
                )
            )
            for at in range(neighbours)
        ]
        list(engine.submit(request("subject", prompt, tokens, SUBJECT_SEED, 0.0)))
        for other in others:
            other.cancel()
            list(other)
    model.close()
    return np.stack(recorder.seen[SUBJECT_SEED])


def in_a_process(path: Path, **given: Any) -> np.ndarray:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(subject_logits, path, **given).result()


def cell(reference: np.ndarray, found: np.ndarray) -> str:
    same_text = np.array_equal(reference.argmax(axis=1), found.argmax(axis=1))
    if np.array_equal(reference, found):
        return "**same bits**"
    differs = int((reference != found).any(axis=1).sum())
    largest = float(np.abs(reference - found).max())
    return f"{differs} of {len(found)} rows differ, by {largest:.1e} at most; text {'same' if same_text else 'differs'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    tokens = parser.parse_args().tokens
    print("| | " + " | ".join(CONDITIONS) + " |")
    print("| --- |" + " --- |" * len(CONDITIONS))
    for name, (path, mode) in MODES.items():
        reference = in_a_process(path, tokens=tokens, **mode)
        cells = []
        for condition in CONDITIONS.values():
            found = in_a_process(path, tokens=tokens, **{**mode, **condition})
            cells.append(cell(reference, found))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
