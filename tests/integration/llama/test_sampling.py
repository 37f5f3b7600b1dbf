"""Choosing tokens over the llama backend: seeds, filters, biases, penalties, and logits that the caller changes."""

import numpy as np
import pytest

from skep.errors.runtime import DecodeFailed, InvalidSampling
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.llama.speaking import GREEDY, chat, feed, rows, say
from skep.runtime.models import BROKEN
from skep.runtime.sampling import SamplingParams

pytestmark = pytest.mark.llama

OPTIONS = SessionOptions(sequences=3, context=512, batch_rows_max=128, threads=1)


def test_a_seed_repeats_and_another_differs(tiny: LlamaModel, session: LlamaSession) -> None:
    def at(seed: int | None) -> str:
        return say(tiny, session, "the", SamplingParams(temperature=2.0, seed=seed), tokens_max=32)

    assert at(5) == at(5)
    assert len({at(seed) for seed in (1, 2, 3, 4)}) > 1
    assert at(2**32 - 1) == at(2**32 - 1)
    assert len({at(None) for _ in range(4)}) > 1


def test_top_k_of_one_is_greedy_at_any_temperature(tiny: LlamaModel, session: LlamaSession) -> None:
    params = SamplingParams(temperature=2.0, top_k=1, seed=1)
    assert say(tiny, session, chat("what color is the sky?"), params) == "the sky is blue."


def test_min_p_and_top_p_cut_the_tail(tiny: LlamaModel, session: LlamaSession) -> None:
    for params in (
        SamplingParams(temperature=1.0, min_p=0.9, seed=1),
        SamplingParams(temperature=1.0, top_p=0.0, seed=1),
    ):
        assert say(tiny, session, chat("what color is the sky?"), params) == "the sky is blue."


def test_a_logit_bias_forbids_and_forces(tiny: LlamaModel, session: LlamaSession) -> None:
    (end,) = tiny.tokenize("<|im_end|>", parse_special=True)
    forced = SamplingParams(temperature=0, logit_bias={end: 100.0})
    assert say(tiny, session, chat("what color is the sky?"), forced) == ""
    forbidden = SamplingParams(temperature=0, logit_bias={end: -100.0})
    assert len(say(tiny, session, chat("what color is the sky?"), forbidden, tokens_max=30)) > len(
        "the sky is blue."
    )


def test_penalties_break_a_repetition(tiny: LlamaModel, session: LlamaSession) -> None:
    params = SamplingParams(
        temperature=0, frequency_penalty=2.0, presence_penalty=2.0, repetition_penalty=5.0
    )
    assert say(tiny, session, chat("say tiger 6 times"), params).count("tiger") < 6


def test_a_prompt_primes_the_penalties(tiny: LlamaModel, session: LlamaSession) -> None:
    tokens = tiny.tokenize(chat("what color is the sky?"), parse_special=True)
    row = feed(session, tokens)
    with session.make_sampler(GREEDY) as sampler:
        favourite = session.sample(sampler, row)
    params = SamplingParams(temperature=0, presence_penalty=2.0, repetition_penalty=10.0)
    with session.make_sampler(params, prompt=[favourite]) as sampler:
        assert session.sample(sampler, row) != favourite


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=-1.0),
        SamplingParams(temperature=float("nan")),
        SamplingParams(top_p=1.5),
        SamplingParams(top_k=-1),
        SamplingParams(repetition_penalty=0.0),
        SamplingParams(seed=2**32),
        SamplingParams(logit_bias={768: 1.0}),
        SamplingParams(logit_bias={1: float("inf")}),
    ],
    ids=str,
)
def test_sampling_parameters_out_of_range_are_typed(session: LlamaSession, params: SamplingParams) -> None:
    with pytest.raises(InvalidSampling):
        session.make_sampler(params)


def test_a_prompt_token_out_of_range_is_typed(session: LlamaSession) -> None:
    with pytest.raises(InvalidSampling):
        session.make_sampler(GREEDY, prompt=[1, 768])


def test_logits_are_a_view_that_steers_the_choice(tiny: LlamaModel, session: LlamaSession) -> None:
    row = feed(session, tiny.tokenize(chat("what color is the sky?"), parse_special=True))
    logits = session.logits(row)
    assert logits.shape == (768,)
    assert logits.dtype == np.float32
    for params in (GREEDY, SamplingParams(temperature=1.0, seed=1)):
        logits[:] = -np.inf
        logits[77] = 0.0
        with session.make_sampler(params) as sampler:
            assert session.sample(sampler, row) == 77


def test_logits_that_are_no_numbers_spoil_the_session(backend: LlamaBackend) -> None:
    with backend.load(BROKEN["nan-weights"], LoadOptions()) as model, model.open_session(OPTIONS) as session:
        session.decode(rows([5, 6]))
        with session.make_sampler(GREEDY) as sampler, pytest.raises(DecodeFailed, match="not numbers"):
            session.sample(sampler, 1)
        with pytest.raises(DecodeFailed, match="close it"):
            session.decode(rows([5]))
