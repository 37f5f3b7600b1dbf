"""Real workers, on the fake and on llama.cpp, and what a failing test shows of them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
import pytest_asyncio

from skep.runtime.models import TINY
from skep.testkit.harness import WorkerHarness
from skep.testkit.harness.plugin import pytest_runtest_makereport, pytest_runtest_setup

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]

FAKE = "fake:demo"
BOTH = [
    pytest.param(FAKE, id="fake"),
    pytest.param(str(TINY), id="llama", marks=pytest.mark.llama),
]


@pytest_asyncio.fixture(loop_scope="module")
async def start_worker() -> AsyncGenerator[Callable[..., Any], None]:
    """Start a worker that ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(model: str = FAKE, **options: Any) -> WorkerHarness:
            return await stack.enter_async_context(await WorkerHarness.start(model, **options))

        yield start


@pytest_asyncio.fixture(params=BOTH, scope="module", loop_scope="module")
async def worker(request: pytest.FixtureRequest) -> AsyncGenerator[WorkerHarness, None]:
    """A worker on each backend, called `m`, that the tests of a module share."""
    extra = ("--served-name", "m", "--threads", "1")
    async with await WorkerHarness.start(request.param, slots=4, context=512, extra=extra) as harness:
        yield harness


@pytest_asyncio.fixture(params=BOTH, loop_scope="module")
async def steady_worker(request: pytest.FixtureRequest) -> AsyncGenerator[WorkerHarness, None]:
    """As `worker`, in deterministic mode: batch-mates change nothing, not even in low bits."""
    extra = ("--served-name", "m", "--threads", "1", "--deterministic")
    async with await WorkerHarness.start(request.param, slots=4, context=512, extra=extra) as harness:
        yield harness


@pytest_asyncio.fixture(loop_scope="module")
async def open_client() -> AsyncGenerator[Callable[[WorkerHarness], openai.AsyncOpenAI], None]:
    """Make openai clients that end with the test."""
    async with AsyncExitStack() as stack:

        def make(harness: WorkerHarness) -> openai.AsyncOpenAI:
            client = openai.AsyncOpenAI(
                base_url=f"{harness.base_url}/v1", api_key=harness.token or "none", max_retries=0
            )
            stack.push_async_callback(client.close)
            return client

        yield make
