"""The tiny model on a GPU. Skipped, with the reason, where the library or the machine has none."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pynvml
import pytest

from skep.errors.runtime import DeviceMissing, DeviceOutOfMemory, InsufficientMemory
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.engine import Engine, EngineOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.speaking import chat, feed, say
from skep.runtime.models import TINY
from skep.runtime.request import GenerationRequest, Token
from skep.runtime.sampling import SamplingParams

pytestmark = [pytest.mark.llama, pytest.mark.cuda]

MIB = 1 << 20
HUGE_CONTEXTS_MAX = 16
OPTIONS = SessionOptions(sequences=2, context=256, batch_rows_max=128, threads=1)


@pytest.fixture(scope="module")
def backend() -> LlamaBackend:
    backend = LlamaBackend()
    if not any(device.index is not None for device in backend.library_info().devices):
        pytest.skip(
            f"{backend.library.candidate.path} sees no GPU: install skep[native] built with -DGGML_CUDA=on"
        )
    pynvml.nvmlInit()
    return backend


@pytest.fixture(scope="module")
def on_gpu(backend: LlamaBackend) -> Iterator[LlamaModel]:
    with backend.load(TINY, LoadOptions(devices=(0,))) as model:
        yield model


def last_logits(model: LlamaModel) -> np.ndarray:
    tokens = model.tokenize(chat("what color is the sky?"), parse_special=True)
    with model.open_session(OPTIONS) as session:
        return session.logits(feed(session, tokens)).copy()


def test_weights_and_cache_are_on_the_gpu(on_gpu: LlamaModel) -> None:
    assert on_gpu.memory().device_bytes > 0.5 * on_gpu.info.size_bytes
    with on_gpu.open_session(OPTIONS) as session:
        assert session.memory().device_bytes > 0


def test_gpu_and_cpu_agree(backend: LlamaBackend, on_gpu: LlamaModel) -> None:
    with backend.load(TINY, LoadOptions()) as on_cpu:
        assert on_cpu.memory().device_bytes == 0
        assert np.allclose(last_logits(on_gpu), last_logits(on_cpu), atol=0.2)


def test_some_layers_may_stay_on_the_cpu(backend: LlamaBackend, on_gpu: LlamaModel) -> None:
    with backend.load(TINY, LoadOptions(devices=(0,), gpu_layers=2)) as partial:
        assert 0 < partial.memory().device_bytes < on_gpu.memory().device_bytes


def test_a_gpu_past_the_last_is_missing(backend: LlamaBackend) -> None:
    with pytest.raises(DeviceMissing):
        backend.load(TINY, LoadOptions(devices=(99,)))


def free_bytes() -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free)


def test_a_load_and_a_context_take_device_memory_and_give_it_back(
    backend: LlamaBackend, on_gpu: LlamaModel
) -> None:
    on_gpu.open_session(OPTIONS).close()  # The device's own context stays with the process.
    before = free_bytes()
    large = SessionOptions(sequences=16, context=8192, batch_rows_max=128, threads=1)
    with backend.load(TINY, LoadOptions(devices=(0,))) as model, model.open_session(large) as session:
        assert session.memory().device_bytes > 100 * MIB
        assert before - free_bytes() > 100 * MIB
    assert before - free_bytes() < 64 * MIB


def test_running_out_of_device_memory_is_typed_and_what_is_open_goes_on(on_gpu: LlamaModel) -> None:
    """Contexts of 16 million positions, until no more fits: tens of GiB each."""
    huge = SessionOptions(sequences=1, context=1 << 24, batch_rows_max=128, threads=1)
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(on_gpu.open_session(OPTIONS))
        assert say(on_gpu, small, chat("what color is the sky?")) == "the sky is blue."

        def fill() -> None:
            for _ in range(HUGE_CONTEXTS_MAX):
                stack.enter_context(on_gpu.open_session(huge))

        with pytest.raises((DeviceOutOfMemory, InsufficientMemory)):
            fill()
        assert say(on_gpu, small, chat("what color is the grass?")) == "the grass is green."
    with on_gpu.open_session(OPTIONS) as again:
        assert say(on_gpu, again, chat("what color is the sky?")) == "the sky is blue."


def test_an_engine_serves_from_the_gpu(on_gpu: LlamaModel) -> None:
    with Engine(on_gpu, EngineOptions(session=OPTIONS)) as engine:
        prompt = tuple(on_gpu.tokenize(chat("what color is the sky?"), parse_special=True))
        sampling = SamplingParams(temperature=0.0, seed=1)
        jobs = [
            engine.submit(GenerationRequest(job_id=f"{at}", prompt=prompt, max_tokens=20, sampling=sampling))
            for at in range(4)
        ]
        texts = ["".join(event.text for event in job if isinstance(event, Token)) for job in jobs]
        assert texts == ["the sky is blue."] * 4
        assert engine.memory().device_bytes > 0
