"""The llama backend over the tiny models, opened once for each file of tests."""

from collections.abc import Iterator

import pytest

from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.models import SPM, TINY


@pytest.fixture(scope="module")
def backend() -> LlamaBackend:
    return LlamaBackend()


@pytest.fixture(scope="module")
def tiny(backend: LlamaBackend) -> Iterator[LlamaModel]:
    with backend.load(TINY, LoadOptions()) as model:
        yield model


@pytest.fixture(scope="module")
def spm(backend: LlamaBackend) -> Iterator[LlamaModel]:
    with backend.load(SPM, LoadOptions()) as model:
        yield model


@pytest.fixture
def session(tiny: LlamaModel) -> Iterator[LlamaSession]:
    options = SessionOptions(sequences=3, context=512, batch_rows_max=128, threads=1)
    with tiny.open_session(options) as session:
        yield session
