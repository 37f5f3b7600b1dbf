"""The backends that the runtime's contracts run over."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.runtime.backend import Backend, BackendModel, LoadOptions
from skep.runtime.models import TINY
from skep.runtime.open import open_backend


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.llama)])
def backend_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backend(backend_name: str) -> Backend:
    return open_backend(backend_name)


@pytest.fixture
def model_path(backend_name: str) -> Path:
    """The tiny model, or with SKEP_TEST_MODEL any other; the fake is as slow as a small model."""
    return (
        Path("fake:contract?token_delay_ms=0.5")
        if backend_name == "fake"
        else Path(os.environ.get("SKEP_TEST_MODEL", TINY))
    )


@pytest.fixture
def model(backend: Backend, model_path: Path) -> Iterator[BackendModel]:
    loaded = backend.load(model_path, LoadOptions())
    yield loaded
    loaded.close()
