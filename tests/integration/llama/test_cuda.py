"""The tiny model on a GPU. Skipped, with the reason, where the library or the machine has none."""

from collections.abc import Iterator

import numpy as np
import pytest

from skep.errors.runtime import DeviceMissing
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.speaking import chat, feed
from skep.runtime.models import TINY

pytestmark = [pytest.mark.llama, pytest.mark.cuda]

OPTIONS = SessionOptions(sequences=2, context=256, batch_rows_max=128, threads=1)


@pytest.fixture(scope="module")
def backend() -> LlamaBackend:
    backend = LlamaBackend()
    if not any(device.index is not None for device in backend.library_info().devices):
        pytest.skip(
            f"{backend.library.candidate.path} sees no GPU: install skep[native] built with -DGGML_CUDA=on"
        )
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
