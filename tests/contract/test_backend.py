"""What every backend does, and what it refuses where the C library would end the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import (
    Closed,
    DecodeAborted,
    InvalidBatch,
    InvalidSampling,
    InvalidToken,
    ModelInUse,
    ModelNotFound,
    WrongThread,
)
from skep.runtime.backend import Backend, BackendModel, BackendSession, LoadOptions, Row, SessionOptions
from skep.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
SHAPE = SessionOptions(sequences=3, context=128, batch_rows_max=32, threads=1, threads_batch=1)


@contextmanager
def opened(model: BackendModel, **changes: object) -> Iterator[BackendSession]:
    shape = {name: getattr(SHAPE, name) for name in SHAPE.__struct_fields__} | changes
    session = model.open_session(SessionOptions(**shape))
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def session(model: BackendModel) -> Iterator[BackendSession]:
    with opened(model) as found:
        yield found


def prompt_of(model: BackendModel, text: str = "once upon a time") -> list[int]:
    return model.tokenize(text)


def rows_of(tokens: list[int], *, sequence: int = 0, start: int = 0) -> list[Row]:
    last = len(tokens) - 1
    return [Row(token, start + at, sequence, at == last) for at, token in enumerate(tokens)]


def feed(session: BackendSession, tokens: list[int], *, sequence: int = 0, start: int = 0) -> np.ndarray:
    """Decode tokens in as many batches as they need; return a copy of the last row's logits."""
    step = session.options.batch_rows_max
    for at in range(0, len(tokens), step):
        part = rows_of(tokens[at : at + step], sequence=sequence, start=start + at)
        session.decode(part)
    return session.logits(len(part) - 1).copy()


def greedy(session: BackendSession, tokens: list[int], count: int, *, sequence: int = 0) -> list[int]:
    feed(session, tokens, sequence=sequence)
    row, at, out = (len(tokens) - 1) % session.options.batch_rows_max, len(tokens), []
    sampler = session.make_sampler(GREEDY)
    for _ in range(count):
        out.append(session.sample(sampler, row))
        session.decode([Row(out[-1], at, sequence, wants_logits=True)])
        row, at = 0, at + 1
    sampler.close()
    return out


# Loading and the vocabulary


def test_loading_tells_progress_that_only_grows_and_ends_at_one(backend: Backend, model_path: Path) -> None:
    seen: list[float] = []
    backend.load(model_path, LoadOptions(), on_progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_missing_file_is_not_found(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        backend.load(tmp_path / "none.gguf", LoadOptions())


def test_a_model_describes_itself(model: BackendModel) -> None:
    info = model.info
    assert info.name
    assert info.vocab_size > 1
    assert info.context_train > 0
    assert info.embedding_size > 0
    assert info.end_tokens
    assert all(0 <= token < info.vocab_size for token in info.end_tokens)
    assert model.memory().ram_bytes + model.memory().device_bytes > 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_the_pieces_of_a_text_s_tokens_are_the_text(model: BackendModel, text: str) -> None:
    tokens = model.tokenize(text, add_special=False)
    assert b"".join(model.piece(token) for token in tokens).decode() == text


def test_text_that_is_no_unicode_is_refused(model: BackendModel) -> None:
    with pytest.raises(InvalidInput):
        model.tokenize("\ud800")


def test_control_tokens_are_read_only_when_asked_and_shown_only_when_asked(model: BackendModel) -> None:
    end = min(model.info.end_tokens)
    name = model.piece(end, special=True).decode()
    assert name
    assert model.piece(end) == b""
    assert model.tokenize(name, add_special=False, parse_special=True) == [end]
    assert end not in model.tokenize(name, add_special=False)


@pytest.mark.parametrize("token", [-1, 10**6, 2**31])
def test_a_token_outside_the_vocabulary_has_no_piece(model: BackendModel, token: int) -> None:
    with pytest.raises(InvalidToken):
        model.piece(token)


# Lifetimes


def test_a_model_with_an_open_session_refuses_to_close_and_stays_usable(model: BackendModel) -> None:
    with opened(model) as session:
        with pytest.raises(ModelInUse):
            model.close()
        feed(session, prompt_of(model))


def test_closing_twice_is_fine_and_using_what_is_closed_is_typed(backend: Backend, model_path: Path) -> None:
    model = backend.load(model_path, LoadOptions())
    session = model.open_session(SHAPE)
    sampler = session.make_sampler(GREEDY)
    session.close()
    session.close()
    sampler.close()
    sampler.close()
    uses = [
        lambda: session.decode([Row(1, 0, 0, wants_logits=True)]),
        lambda: session.make_sampler(GREEDY),
        lambda: session.sample(sampler, 0),
        lambda: session.logits(0),
        lambda: session.embedding(0),
        lambda: session.sequence_remove(0, 0, -1),
        lambda: session.sequence_copy(0, 1, 0, -1),
        lambda: session.sequence_position_max(0),
    ]
    for use in uses:
        with pytest.raises(Closed):
            use()
    session.interrupt()
    session.resume()
    model.close()
    model.close()
    for use in (lambda: model.tokenize("a"), lambda: model.piece(0), lambda: model.open_session(SHAPE)):
        with pytest.raises(Closed):
            use()


def test_a_closed_sampler_is_refused(model: BackendModel, session: BackendSession) -> None:
    feed(session, [1, 2, 3])
    sampler = session.make_sampler(GREEDY)
    sampler.close()
    with pytest.raises(Closed):
        session.sample(sampler, 2)


def test_a_session_belongs_to_the_thread_that_uses_it_first(
    model: BackendModel, session: BackendSession
) -> None:
    feed(session, [1, 2, 3])
    caught: list[SkepError] = []

    def other() -> None:
        try:
            session.decode([Row(4, 3, 0, wants_logits=True)])
        except SkepError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert isinstance(caught[0], WrongThread)
    assert session.sequence_position_max(0) == 2


@pytest.mark.parametrize("changes", [{"sequences": 0}, {"context": 0}, {"context": 2_000_000_000}])
def test_absurd_sizes_are_refused(model: BackendModel, changes: dict[str, int]) -> None:
    with pytest.raises(SkepError), opened(model, **changes):
        pytest.fail("the session was opened")


# Decoding: what is refused changes nothing


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Row(1, 3 + at, 0, False) for at in range(33)],
        [Row(-1, 3, 0, True)],
        [Row(10**6, 3, 0, True)],
        [Row(1, 3, -1, True)],
        [Row(1, 3, 3, True)],
        [Row(1, 4, 0, True)],
        [Row(1, 2, 0, True)],
        [Row(1, -1, 0, True)],
        [Row(1, 3, 0, False), Row(1, 5, 0, True)],
        [Row(1, 128, 0, True)],
    ],
    ids=[
        "empty", "too many rows", "negative token", "token too large", "negative sequence", "sequence too large",
        "position gap", "position rewind", "negative position", "gap inside", "beyond the context",
    ],
)  # fmt: skip
def test_a_bad_batch_is_refused_and_the_context_is_unchanged(
    model: BackendModel, session: BackendSession, rows: list[Row]
) -> None:
    feed(session, [1, 2, 3])
    with pytest.raises(InvalidBatch):
        session.decode(rows)
    assert [session.sequence_position_max(sequence) for sequence in range(3)] == [2, -1, -1]
    after = feed(session, [4], start=3)
    with opened(model) as fresh:
        feed(fresh, [1, 2, 3])
        np.testing.assert_array_equal(after, feed(fresh, [4], start=3))


@pytest.mark.parametrize("row", [0, 1, -1, 3, 99])
def test_a_row_without_logits_can_be_neither_read_nor_sampled(session: BackendSession, row: int) -> None:
    session.decode(rows_of([1, 2, 3]))
    sampler = session.make_sampler(GREEDY)
    with pytest.raises(InvalidBatch):
        session.logits(row)
    with pytest.raises(InvalidBatch):
        session.sample(sampler, row)
    sampler.close()


def test_the_logits_depend_on_the_whole_history(model: BackendModel, session: BackendSession) -> None:
    one = feed(session, [1, 2, 3], sequence=0)
    other = feed(session, [2, 2, 3], sequence=1)
    again = feed(session, [1, 2, 3], sequence=2)
    assert one.shape == (model.info.vocab_size,)
    assert one.dtype == np.float32
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, again, rtol=1e-3, atol=1e-3)


def test_a_prompt_in_chunks_says_the_same_as_in_one_piece(
    model: BackendModel, session: BackendSession
) -> None:
    tokens = prompt_of(model, "count from 1 to 9")
    whole = feed(session, tokens)
    for at, token in enumerate(tokens):
        chunked = feed(session, [token], sequence=1, start=at)
    assert int(whole.argmax()) == int(chunked.argmax())


# Sampling


def test_greedy_takes_the_highest_logit_and_a_mask_on_the_logits_counts(session: BackendSession) -> None:
    best = int(feed(session, [1, 2, 3]).argmax())
    sampler = session.make_sampler(GREEDY)
    assert session.sample(sampler, 2) == best
    session.logits(2)[best] = -np.inf
    assert session.sample(sampler, 2) != best
    sampler.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mask_that_leaves_one_token_decides(session: BackendSession, temperature: float) -> None:
    feed(session, [1, 2, 3])
    sampler = session.make_sampler(SamplingParams(temperature=temperature, seed=1))
    logits = session.logits(2)
    logits[:] = -np.inf
    logits[42] = 0.0
    assert session.sample(sampler, 2) == 42
    sampler.close()


def test_a_seed_repeats_the_same_choices_and_another_makes_others(session: BackendSession) -> None:
    def choices(seed: int) -> list[int]:
        sampler = session.make_sampler(SamplingParams(temperature=2.0, seed=seed))
        try:
            return [session.sample(sampler, 2) for _ in range(40)]
        finally:
            sampler.close()

    feed(session, [1, 2, 3])
    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.7, top_k=1, seed=3),
        SamplingParams(temperature=0.7, top_p=0.0, seed=3),
        SamplingParams(temperature=0.7, min_p=1.0, seed=3),
    ],
    ids=["top_k 1", "top_p 0", "min_p 1"],
)
def test_the_narrowest_truncation_is_greedy(session: BackendSession, params: SamplingParams) -> None:
    best = int(feed(session, [1, 2, 3]).argmax())
    sampler = session.make_sampler(params)
    assert {session.sample(sampler, 2) for _ in range(10)} == {best}
    sampler.close()


def test_a_bias_forces_and_forbids_a_token(session: BackendSession) -> None:
    best = int(feed(session, [1, 2, 3]).argmax())
    forced = session.make_sampler(SamplingParams(temperature=0.0, logit_bias={7: 100.0}))
    forbidden = session.make_sampler(SamplingParams(temperature=0.0, logit_bias={best: -100.0}))
    assert session.sample(forced, 2) == 7
    assert session.sample(forbidden, 2) != best
    forced.close()
    forbidden.close()


def test_a_repetition_penalty_counts_the_prompt(session: BackendSession) -> None:
    best = int(feed(session, [1, 2, 3]).argmax())
    params = SamplingParams(
        temperature=0.0, presence_penalty=2.0, frequency_penalty=2.0, repetition_penalty=10.0
    )
    sampler = session.make_sampler(params, prompt=[best] * 20)
    assert session.sample(sampler, 2) != best
    sampler.close()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=-1.0),
        SamplingParams(temperature=float("nan")),
        SamplingParams(top_p=1.5),
        SamplingParams(logit_bias={10**6: 1.0}),
        SamplingParams(seed=-1),
    ],
    ids=["temperature below 0", "no number", "top_p over 1", "bias of no token", "negative seed"],
)
def test_a_bad_sampling_parameter_is_refused(session: BackendSession, params: SamplingParams) -> None:
    with pytest.raises(InvalidSampling):
        session.make_sampler(params)


# The cache


def test_a_tail_that_was_dropped_can_be_decoded_again(model: BackendModel, session: BackendSession) -> None:
    tokens = prompt_of(model, "the quick brown fox")
    first = feed(session, tokens)
    assert session.sequence_remove(0, len(tokens) - 2, -1)
    assert session.sequence_position_max(0) == len(tokens) - 3
    again = feed(session, tokens[-2:], start=len(tokens) - 2)
    assert int(first.argmax()) == int(again.argmax())


def test_a_copied_sequence_goes_on_as_its_source_does(model: BackendModel, session: BackendSession) -> None:
    tokens = prompt_of(model, "the quick brown fox")
    expected = greedy(session, tokens, 5)
    session.sequence_remove(0, 0, -1)
    feed(session, tokens[:-1])
    session.sequence_copy(0, 1, 0, -1)
    assert session.sequence_position_max(1) == len(tokens) - 2
    session.sequence_remove(0, 0, -1)
    sampler = session.make_sampler(GREEDY)
    token, out = tokens[-1], []
    for at in range(len(tokens) - 1, len(tokens) + 4):
        session.decode([Row(token, at, 1, wants_logits=True)])
        out.append(token := session.sample(sampler, 0))
    sampler.close()
    assert out == expected


def test_a_partial_copy_needs_a_unified_cache(model: BackendModel, session: BackendSession) -> None:
    feed(session, [1, 2, 3, 4])
    with pytest.raises(InvalidBatch):
        session.sequence_copy(0, 1, 0, 2)
    with opened(model, unified_cache=True) as unified:
        expected = feed(unified, [1, 2, 9])
        unified.sequence_remove(0, 0, -1)
        feed(unified, [1, 2, 3, 4])
        unified.sequence_copy(0, 1, 0, 2)
        assert unified.sequence_position_max(1) == 1
        assert int(feed(unified, [9], sequence=1, start=2).argmax()) == int(expected.argmax())


@pytest.mark.parametrize("sequence", [-1, 3])
def test_a_sequence_that_does_not_exist_is_refused(session: BackendSession, sequence: int) -> None:
    for use in (
        lambda: session.sequence_remove(sequence, 0, -1),
        lambda: session.sequence_copy(sequence, 0, 0, -1),
        lambda: session.sequence_copy(0, sequence, 0, -1),
        lambda: session.sequence_position_max(sequence),
    ):
        with pytest.raises(InvalidBatch):
            use()


# Interrupting


def test_an_interrupt_aborts_until_it_is_resumed_and_positions_stay_true(
    model: BackendModel, session: BackendSession
) -> None:
    feed(session, [1, 2, 3])
    session.interrupt()
    with pytest.raises(DecodeAborted):
        session.decode([Row(4, 3 + at, 0, at == 7) for at in range(8)])
    session.resume()
    reached = session.sequence_position_max(0)
    assert 2 <= reached <= 10
    assert session.sequence_remove(0, 3, -1)
    after = feed(session, [5], start=3)
    with opened(model) as fresh:
        feed(fresh, [1, 2, 3])
        assert int(after.argmax()) == int(feed(fresh, [5], start=3).argmax())


# Embeddings


def test_embeddings_need_a_session_for_them_and_tell_texts_apart(
    model: BackendModel, session: BackendSession
) -> None:
    feed(session, [1, 2, 3])
    with pytest.raises(InvalidBatch):
        session.embedding(0)
    with opened(model, sequences=1, embeddings=True) as embedding:

        def vector(text: str) -> np.ndarray:
            embedding.decode(rows_of(model.tokenize(text)))
            found = embedding.embedding(0)
            embedding.sequence_remove(0, 0, -1)
            return found

        bee, again, sky = vector("a bee"), vector("a bee"), vector("the sky")
        assert bee.shape == (model.info.embedding_size,)
        np.testing.assert_allclose(bee, again, rtol=1e-4, atol=1e-5)
        assert not np.allclose(bee, sky, atol=1e-3)
