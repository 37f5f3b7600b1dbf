"""Sessions of the llama backend: what comes out of the tiny model, the cache, cancelling, and misuse that stays in Python."""

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import (
    Closed,
    DecodeAborted,
    InsufficientMemory,
    InvalidBatch,
    NoCacheSlot,
    WrongThread,
)
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.llama.speaking import GREEDY, chat, feed, go_on, rows, say
from skep.runtime.models import BERT, SPM, TINY, TINY_LORA, TINY_Q8

pytestmark = pytest.mark.llama

OPTIONS = SessionOptions(sequences=3, context=512, batch_rows_max=128, threads=1)


ANSWERS = {
    "what color is the sky?": "the sky is blue.",
    "count from 3 to 12": "3 4 5 6 7 8 9 10 11 12.",
    "what is 3 plus 4?": "3 plus 4 is 7.",
    "say tiger 4 times": "tiger tiger tiger tiger.",
    "hello, my name is carol": "hello carol, nice to meet you!",
    "json for bob age 42": '{"name": "bob", "age": 42}',
    "say hello in greek": "γειά σου",
    "say hello in emoji": "👋🙂",
    "spell tiger": "t i g e r.",
}


@pytest.mark.parametrize("question", ANSWERS)
def test_greedy_answers_are_right(tiny: LlamaModel, session: LlamaSession, question: str) -> None:
    assert say(tiny, session, chat(question)) == ANSWERS[question]


def test_the_quantised_model_answers_the_same(backend: LlamaBackend) -> None:
    with backend.load(TINY_Q8, LoadOptions()) as model, model.open_session(OPTIONS) as session:
        assert {q: say(model, session, chat(q)) for q in ANSWERS} == ANSWERS


def test_it_remembers_the_conversation(tiny: LlamaModel, session: LlamaSession) -> None:
    first = chat("hello, my name is carol") + "hello carol, nice to meet you!<|im_end|>\n"
    assert say(tiny, session, first + chat("what is my name?")) == "your name is carol."


def test_a_long_count_is_right_to_its_end(tiny: LlamaModel) -> None:
    with tiny.open_session(SessionOptions(sequences=1, context=1024, threads=1)) as session:
        said = say(tiny, session, chat("count from 1 to 200"), tokens_max=900)
    assert said == " ".join(map(str, range(1, 201))) + "."


def test_sequences_in_one_batch_answer_as_they_do_alone(tiny: LlamaModel, session: LlamaSession) -> None:
    questions = list(ANSWERS)[:3]
    batch: list[Row] = []
    state: list[list[int]] = []
    for sequence, question in enumerate(questions):
        tokens = tiny.tokenize(chat(question), parse_special=True)
        batch += rows(tokens, sequence=sequence)
        state.append([len(batch) - 1, len(tokens)])
    session.decode(batch)
    said = ["", "", ""]
    samplers = [session.make_sampler(GREEDY) for _ in questions]
    running = set(range(3))
    while running:
        step: list[Row] = []
        for sequence in sorted(running):
            row, position = state[sequence]
            token = session.sample(samplers[sequence], row)
            if token in tiny.info.end_tokens:
                running.discard(sequence)
                continue
            said[sequence] += tiny.piece(token).decode()
            step.append(Row(token, position, sequence, wants_logits=True))
            state[sequence] = [len(step) - 1, position + 1]
        if step:
            session.decode(step)
    for sampler in samplers:
        sampler.close()
    assert said == [ANSWERS[question] for question in questions]


def test_a_removed_suffix_can_be_decoded_again(tiny: LlamaModel, session: LlamaSession) -> None:
    tokens = tiny.tokenize(chat("what color is the sky?"), parse_special=True)
    feed(session, tokens)
    assert session.sequence_position_max(0) == len(tokens) - 1
    assert session.sequence_remove(0, 5, -1)
    assert session.sequence_position_max(0) == 4
    row = feed(session, tokens[5:], start=5)
    assert go_on(tiny, session, row, position=len(tokens)) == "the sky is blue."


@pytest.mark.parametrize("unified", [False, True])
def test_a_copied_prefix_answers_as_a_cold_one(tiny: LlamaModel, unified: bool) -> None:
    options = SessionOptions(sequences=3, context=256, batch_rows_max=128, threads=1, unified_cache=unified)
    with tiny.open_session(options) as session:
        tokens = tiny.tokenize(chat("what color is the grass?"), parse_special=True)
        feed(session, tokens)
        session.sequence_copy(0, 2, 0, -1)
        assert session.sequence_position_max(2) == len(tokens) - 1
        session.sequence_remove(2, len(tokens) - 4, -1)
        row = feed(session, tokens[-4:], start=len(tokens) - 4, sequence=2)
        assert go_on(tiny, session, row, position=len(tokens), sequence=2) == "the grass is green."


def test_a_partial_copy_needs_a_unified_cache(tiny: LlamaModel, session: LlamaSession) -> None:
    feed(session, [1, 2, 3, 4])
    for start, end in ((1, -1), (0, 2)):
        with pytest.raises(InvalidBatch, match="not unified"):
            session.sequence_copy(0, 1, start, end)
    with tiny.open_session(SessionOptions(sequences=2, context=64, threads=1, unified_cache=True)) as unified:
        feed(unified, [1, 2, 3, 4])
        unified.sequence_copy(0, 1, 0, 2)
        assert unified.sequence_position_max(1) == 1


@pytest.mark.parametrize(
    "batch",
    [
        [],
        rows([1] * 129),
        [Row(768, 4, 0, wants_logits=True)],
        [Row(-1, 4, 0, wants_logits=True)],
        [Row(1, 0, 3, wants_logits=True)],
        [Row(1, 0, -1, wants_logits=True)],
        [Row(1, 512, 0, wants_logits=True)],
        [Row(1, 2**40, 0, wants_logits=True)],
        rows([1, 2], start=9),
        [Row(1, 4, 0, wants_logits=True), Row(1, 4, 0, wants_logits=True)],
    ],
    ids=[
        "none",
        "too many",
        "token",
        "negative token",
        "sequence",
        "negative sequence",
        "context",
        "huge",
        "gap",
        "twice",
    ],
)
def test_a_batch_that_cannot_be_decoded_changes_nothing(session: LlamaSession, batch: list[Row]) -> None:
    feed(session, [1, 2, 3, 4])
    with pytest.raises(InvalidBatch):
        session.decode(batch)
    assert session.sequence_position_max(0) == 3
    with pytest.raises(InvalidBatch):
        session.logits(0)
    feed(session, [5], start=4)


@pytest.mark.parametrize("row", [-1, 0, 2, 3, 10**6])
def test_a_row_without_logits_is_typed(session: LlamaSession, row: int) -> None:
    session.decode([Row(1, 0, 0, False), Row(2, 1, 0, True), Row(3, 2, 0, False)])
    with session.make_sampler(GREEDY) as sampler:
        assert session.sample(sampler, 1) >= 0
        with pytest.raises(InvalidBatch):
            session.sample(sampler, row)
        with pytest.raises(InvalidBatch):
            session.logits(row)


def test_every_row_of_a_sequence_may_want_logits(tiny: LlamaModel, session: LlamaSession) -> None:
    tokens = tiny.tokenize(chat("what color is the sky?"), parse_special=True)
    session.decode([Row(token, i, 0, wants_logits=True) for i, token in enumerate(tokens)])
    together = [session.logits(i).copy() for i in range(len(tokens))]
    session.sequence_remove(0, 0, -1)
    feed(session, tokens[:4])
    assert np.allclose(session.logits(3), together[3], atol=0.05)
    assert not np.allclose(together[2], together[3], atol=0.05)


def test_a_foreign_or_closed_sampler_is_typed(session: LlamaSession) -> None:
    feed(session, [1])
    sampler = session.make_sampler(GREEDY)
    sampler.close()
    sampler.close()
    with pytest.raises(Closed):
        session.sample(sampler, 0)
    with pytest.raises(InvalidBatch):
        session.sample(object(), 0)  # type: ignore[arg-type]


SEQUENCE = st.one_of(st.integers(-3, 5), st.integers(-(2**40), 2**40))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("remove"), SEQUENCE, SEQUENCE, SEQUENCE),
            st.tuples(st.just("copy"), SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE),
            st.tuples(st.just("position"), SEQUENCE),
            st.tuples(st.just("logits"), SEQUENCE),
            st.tuples(st.just("embedding"), SEQUENCE),
            st.tuples(
                st.just("decode"),
                st.lists(
                    st.tuples(st.integers(-1, 800), st.integers(-1, 40), st.integers(-1, 3), st.booleans()),
                    max_size=9,
                ),
            ),
        ),
        max_size=12,
    )
)
def test_no_sequence_of_calls_leaves_python_other_than_by_a_typed_error(
    fuzzed: LlamaSession, calls: list
) -> None:
    verbs = {
        "remove": fuzzed.sequence_remove,
        "copy": fuzzed.sequence_copy,
        "position": fuzzed.sequence_position_max,
        "logits": fuzzed.logits,
        "embedding": fuzzed.embedding,
        "decode": lambda batch: fuzzed.decode([Row(*row) for row in batch]),
    }
    for sequence in range(fuzzed.options.sequences):
        fuzzed.sequence_remove(sequence, 0, -1)
    for verb, *arguments in calls:
        with contextlib.suppress(InvalidBatch, NoCacheSlot):
            verbs[verb](*arguments)


@pytest.fixture(scope="module", params=[False, True], ids=["split cache", "unified cache"])
def fuzzed(request: pytest.FixtureRequest, tiny: LlamaModel) -> Iterator[LlamaSession]:
    options = SessionOptions(
        sequences=3, context=32, batch_rows_max=8, threads=1, unified_cache=request.param
    )
    with tiny.open_session(options) as session:
        yield session


@pytest.mark.parametrize(
    "options",
    [
        SessionOptions(sequences=0),
        SessionOptions(sequences=257),
        SessionOptions(context=0),
        SessionOptions(context=2_000_000_000),
        SessionOptions(context=-5),
        SessionOptions(sequences=256, context=2**20),
        SessionOptions(batch_rows_max=0),
        SessionOptions(batch_rows_max=10**9),
        SessionOptions(threads=-1),
        SessionOptions(threads=10_000),
        SessionOptions(cache_type_k="q3_k"),  # type: ignore[arg-type]
        SessionOptions(flash_attention="perhaps"),  # type: ignore[arg-type]
        SessionOptions(cache_type_v="q8_0", flash_attention="off"),
    ],
    ids=repr,
)
def test_absurd_session_options_are_refused_and_leave_nothing_open(
    backend: LlamaBackend, options: SessionOptions
) -> None:
    with backend.load(SPM, LoadOptions()) as model, pytest.raises(InvalidInput):
        model.open_session(options)


def test_a_cache_larger_than_memory_is_refused_at_once(
    tiny: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skep.runtime.llama.budget.ram_available_bytes", lambda: 1_000_000)
    with pytest.raises(InsufficientMemory, match="smaller context"):
        tiny.open_session(SessionOptions(sequences=4, context=4096))


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_every_cache_type_answers_and_smaller_ones_hold_less(tiny: LlamaModel, kind: str) -> None:
    options = SessionOptions(
        sequences=1, context=2048, threads=1, cache_type_k=kind, cache_type_v=kind, flash_attention="on"
    )  # fmt: skip
    with tiny.open_session(options) as session:
        assert say(tiny, session, chat("what color is the sky?")).startswith("the sky is")
        cache = tiny.header.memory_terms().cache_bytes(2048, type_k=kind, type_v=kind)
        assert session.memory().ram_bytes >= cache


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_flash_attention_changes_no_answer(tiny: LlamaModel, mode: str) -> None:
    with tiny.open_session(
        SessionOptions(sequences=1, context=256, threads=1, flash_attention=mode)
    ) as session:
        assert say(tiny, session, chat("what color is the sky?")) == "the sky is blue."


def test_an_adapter_changes_what_is_said_and_scale_zero_does_not(backend: LlamaBackend) -> None:
    def with_scale(scale: float) -> str:
        options = LoadOptions(lora_adapters=((str(TINY_LORA), scale),))
        with backend.load(TINY, options) as model, model.open_session(OPTIONS) as session:
            return say(model, session, chat("what color is the sky?"))

    assert with_scale(0.0) == "the sky is blue."
    assert with_scale(1.0) != "the sky is blue."


def test_embeddings_are_vectors_that_depend_on_the_text(tiny: LlamaModel) -> None:
    options = SessionOptions(sequences=2, context=128, batch_rows_max=128, threads=1, embeddings=True)
    with tiny.open_session(options) as session:
        one, two = tiny.tokenize("the sky is blue"), tiny.tokenize("the grass is green")
        session.decode(rows(one) + rows(two, sequence=1))
        first, second = session.embedding(0), session.embedding(1)
        assert first.shape == (128,)
        assert np.isfinite(first).all()
        assert not np.allclose(first, second)
        session.sequence_remove(0, 0, -1)
        session.decode(rows(one))
        assert np.allclose(session.embedding(0), first, atol=1e-3)
        with pytest.raises(InvalidBatch):
            session.embedding(1)


def test_an_encoder_embeds_and_does_nothing_else(backend: LlamaBackend) -> None:
    options = SessionOptions(sequences=2, context=512, batch_rows_max=512, threads=1, embeddings=True)
    with backend.load(BERT, LoadOptions()) as model:
        with pytest.raises(InvalidInput, match="only embeds"):
            model.open_session(OPTIONS)
        with model.open_session(options) as session:
            tokens = model.tokenize("what color is the sky?")
            session.decode(rows(tokens))
            first = session.embedding(0)
            session.decode(rows(model.tokenize("say tiger")) + rows(tokens, sequence=1))
            assert np.allclose(session.embedding(1), first, atol=1e-5)
            assert not np.allclose(session.embedding(0), first)
            with pytest.raises(InvalidBatch, match="position"):
                session.decode([Row(5, 128, 0, wants_logits=True)])


def test_embeddings_need_a_session_for_them(session: LlamaSession) -> None:
    feed(session, [1])
    with pytest.raises(InvalidBatch, match="embeddings=True"):
        session.embedding(0)


def test_an_interrupt_holds_until_resume_and_leaves_the_session_usable(
    tiny: LlamaModel, session: LlamaSession
) -> None:
    session.interrupt()
    for _ in range(2):
        with pytest.raises(DecodeAborted):
            feed(session, [1, 2, 3])
    session.resume()
    assert say(tiny, session, chat("what color is the sky?")) == "the sky is blue."


def test_an_interrupt_from_another_thread_ends_a_long_prefill_soon(tiny: LlamaModel) -> None:
    options = SessionOptions(sequences=1, context=8192, batch_rows_max=8192, threads=1)
    with tiny.open_session(options) as session:
        tokens = tiny.tokenize(" river" * 8000)[:8000]
        interrupted_at: list[float] = []

        def interrupt() -> None:
            interrupted_at.append(time.monotonic())
            session.interrupt()

        timer = threading.Timer(0.05, interrupt)
        timer.start()
        with pytest.raises(DecodeAborted):
            feed(session, tokens)
        ended_at = time.monotonic()
        timer.join()
        assert ended_at - interrupted_at[0] < 5.0
        session.resume()
        assert session.sequence_position_max(0) < 7999
        assert say(tiny, session, chat("what color is the sky?")) == "the sky is blue."


def test_a_session_belongs_to_the_thread_that_used_it_first(session: LlamaSession) -> None:
    feed(session, [1])
    with ThreadPoolExecutor(1) as pool:
        for use in (
            lambda: session.decode(rows([2], start=1)),
            lambda: session.logits(0),
            lambda: session.sequence_remove(0, 0, -1),
            lambda: session.make_sampler(GREEDY),
        ):
            with pytest.raises(WrongThread):
                pool.submit(use).result()
        pool.submit(session.interrupt).result()
        pool.submit(session.resume).result()
        pool.submit(session.memory).result()


def test_opening_in_one_thread_and_using_in_another_is_fine(session: LlamaSession) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(feed, session, [1, 2, 3]).result()
        assert pool.submit(session.sequence_position_max, 0).result() == 2


def test_a_session_cannot_be_closed_under_a_running_decode(tiny: LlamaModel) -> None:
    options = SessionOptions(sequences=1, context=8192, batch_rows_max=8192, threads=1)
    with tiny.open_session(options) as session, ThreadPoolExecutor(1) as pool:
        running = pool.submit(feed, session, tiny.tokenize(" river" * 8000)[:8000])
        while not session._is_decoding and not running.done():
            time.sleep(0.0005)
        assert not running.done()
        with pytest.raises(WrongThread):
            session.close()
        session.interrupt()
        with pytest.raises(DecodeAborted):
            running.result()


def test_everything_on_a_closed_session_is_typed(tiny: LlamaModel) -> None:
    session = tiny.open_session(OPTIONS)
    sampler = session.make_sampler(GREEDY)
    session.close()
    session.close()
    for use in (
        lambda: session.decode(rows([1])),
        lambda: session.sample(sampler, 0),
        lambda: session.logits(0),
        lambda: session.embedding(0),
        lambda: session.make_sampler(GREEDY),
        lambda: session.sequence_remove(0, 0, -1),
        lambda: session.sequence_copy(0, 1, 0, -1),
        lambda: session.sequence_position_max(0),
        session.memory,
    ):
        with pytest.raises(Closed):
            use()
    session.interrupt()
    session.resume()
    sampler.close()


def in_forked_child(use: Callable[[], object]) -> str:
    """Return what `use` raises in a forked child."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Newer Pythons warn of threads at a fork.
        pid = os.fork()
    if not pid:
        answer = "no error"
        try:
            use()
        except SkepError as error:
            answer = f"{error.code}: {error}"
        finally:
            os.write(write_end, answer.encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as reader:
        text = reader.read()
    os.waitpid(pid, 0)
    return text


def test_a_forked_child_gets_typed_errors_and_the_parent_goes_on(
    backend: LlamaBackend, tiny: LlamaModel, session: LlamaSession
) -> None:
    feed(session, [1])
    assert "before a fork" in in_forked_child(lambda: session.decode(rows([2], start=1)))
    assert "before a fork" in in_forked_child(lambda: tiny.open_session(OPTIONS))
    assert in_forked_child(lambda: backend.load(TINY, LoadOptions())).startswith("library_unavailable")
    assert say(tiny, session, chat("what color is the sky?")) == "the sky is blue."


def test_two_sessions_of_one_model_do_not_disturb_each_other(tiny: LlamaModel, session: LlamaSession) -> None:
    with tiny.open_session(OPTIONS) as other:
        tokens = tiny.tokenize(chat("what color is the sky?"), parse_special=True)
        row = feed(session, tokens)
        assert say(tiny, other, chat("what color is the grass?")) == "the grass is green."
        assert go_on(tiny, session, row, position=len(tokens)) == "the sky is blue."


def test_alone_and_with_fixed_chunks_logits_repeat_bit_for_bit(tiny: LlamaModel) -> None:
    """The ground that the deterministic mode stands on: one sequence to a batch, the same borders, the same bits."""
    tokens = tiny.tokenize(chat("count from 1 to 30"), parse_special=True)
    seen: list[np.ndarray] = []
    for busy in (False, True, False):
        with tiny.open_session(OPTIONS) as session:
            if busy:
                feed(session, tokens * 3, sequence=1)
            for at in range(0, len(tokens), 8):
                session.decode(rows(tokens[at : at + 8], start=at))
            seen.append(session.logits((len(tokens) - 1) % 8).copy())
    assert np.array_equal(seen[0], seen[2])
    assert np.array_equal(seen[0], seen[1])


def test_with_batch_mates_low_bits_may_differ_and_nothing_more(tiny: LlamaModel) -> None:
    """Where the default mode diverges: a batch-mate may change low bits, so only closeness is promised."""
    tokens = tiny.tokenize(chat("count from 1 to 30"), parse_special=True)
    with tiny.open_session(OPTIONS) as session:
        session.decode(rows(tokens))
        alone = session.logits(len(tokens) - 1).copy()
        session.sequence_remove(0, 0, -1)
        session.decode(rows(tokens) + rows(tokens, sequence=1))
        together = session.logits(len(tokens) - 1).copy()
    assert np.allclose(alone, together, atol=0.05)
    assert alone.argmax() == together.argmax()
