"""The library: what people write, and lifetimes that cannot be got wrong silently."""

import gc
import warnings
from typing import Any

import numpy as np
import pytest

import skep.runtime
from skep.errors import InvalidInput
from skep.errors.runtime import Cancelled, Closed, ContextOverflow, ModelInUse, ModelLoadFailed
from skep.runtime import Constraint, EngineOptions, Finished, LoadOptions, Model, Started, Token, collect
from skep.runtime.fake import FakeBackend, FakeScript
from skep.runtime.model import parse_devices

SKY = FakeBackend(FakeScript(name="sky", text="the sky is blue."))


def load(backend: Any = SKY, **given: Any) -> Model:
    return Model.load("fake:any", backend=backend, **given)


def test_a_model_streams_text_through_a_session() -> None:
    with load() as model, model.session(slots=2, context=256) as session:
        start, *tokens, end = list(session.generate("What? ", max_tokens=7, seed=7))
        assert isinstance(start, Started)
        assert start.seed == 7
        assert "".join(token.text for token in tokens) == "the sky"
        assert isinstance(end, Finished)


def test_a_conversation_is_answered_by_the_chat_template() -> None:
    with load() as model, model.session() as session:
        job = session.chat([{"role": "user", "content": "what color is the sky?"}], temperature=0.0)
        assert collect(job) == "the sky is blue."


def test_options_reach_the_sampler_and_the_request() -> None:
    with load() as model, model.session() as session:
        assert session.text("?", temperature=0.0, stop="is") == "the sky "
        assert (
            session.text("?", temperature=0.0, constraint=Constraint(kind="regex", text="[xy]{3}"))[0] in "xy"
        )
        first = next(event for event in session.generate("?", logprobs=2) if isinstance(event, Token))
        assert len(first.top) == 2
        with pytest.raises(TypeError):
            session.generate("?", nonsense=1)
        with pytest.raises(InvalidInput):
            session.generate("?", temperature=-1.0)


def test_leaving_a_loop_early_cancels_the_job() -> None:
    with load(FakeBackend(FakeScript(token_delay_ms=2))) as model, model.session() as session:
        job = session.generate("?", max_tokens=200)
        for event in job:
            if isinstance(event, Token):
                break
        while not job.is_over:
            job.next_events_blocking()
        assert session.stats().cancelled_total == 1


def test_what_ended_a_job_badly_is_raised_to_whoever_collects_it() -> None:
    with load(FakeBackend(FakeScript(token_delay_ms=2))) as model, model.session() as session:
        job = session.generate("?", max_tokens=200)
        job.cancel()
        with pytest.raises(Cancelled):
            collect(job)
        with pytest.raises(ContextOverflow):
            session.text("x" * 5000)


def test_texts_are_embedded_as_unit_vectors() -> None:
    with load() as model, model.session() as session:
        vector = session.embed("a bee")
        assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_array_equal(vector, session.embed("a bee"))


def test_tokens_and_text_convert_both_ways() -> None:
    with load() as model:
        assert model.detokenize(model.tokenize("héllo")) == "héllo"
        assert model.info.name == "sky"
        assert model.memory().ram_bytes > 0


def test_a_model_outlives_its_sessions_or_refuses_to_close() -> None:
    model = load()
    session = model.session()
    with pytest.raises(ModelInUse):
        model.close()
    session.close()
    session.close()
    model.close()
    model.close()
    with pytest.raises(Closed):
        session.generate("?")
    with pytest.raises(Closed):
        model.session()
    with pytest.raises(Closed):
        model.tokenize("?")


@pytest.mark.parametrize("forgotten", ["model", "session"])
def test_what_is_never_closed_warns_and_is_freed(forgotten: str) -> None:
    model = load()
    session = model.session()
    if forgotten == "model":
        session.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        if forgotten == "model":
            del model
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"a {forgotten} was never closed"]
    if forgotten == "session":
        model.close()


def test_a_load_tells_its_progress_and_fails_typed() -> None:
    seen: list[float] = []
    load(on_progress=seen.append).close()
    assert seen[-1] == 1.0
    with pytest.raises(ModelLoadFailed):
        load(FakeBackend(FakeScript(fail_load="gguf_truncated")))


@pytest.mark.parametrize(("text", "expected"), [("cpu", ()), ("0", (0,)), ("1,0", (1, 0))])
def test_a_device_mask_is_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_devices(text) == expected


@pytest.mark.parametrize("text", ["", "gpu", "0,0", "-1", "0,", "cpu,0"])
def test_a_device_mask_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_devices(text)


def test_weights_on_a_device_are_counted_there() -> None:
    with load(devices="0", options=LoadOptions(gpu_layers=3)) as model:
        assert model.memory().device_bytes > 0
        assert model.memory().ram_bytes == 0


def test_the_public_names_are_these() -> None:
    assert skep.runtime.__all__ == sorted(skep.runtime.__all__)
    assert set(skep.runtime.__all__) == {
        "Constraint", "EngineOptions", "Failed", "Finished", "LoadOptions", "Model", "SamplingParams", "Session",
        "SessionOptions", "Started", "Token", "collect",
    }  # fmt: skip
    for name in skep.runtime.__all__:
        assert getattr(skep.runtime, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = skep.runtime.nothing


def test_more_slots_than_rows_make_the_batch_larger() -> None:
    small = EngineOptions()
    with load() as model, model.session(slots=600, context=16, options=small) as session:
        assert session.engine.options.session.batch_rows_max == 600
