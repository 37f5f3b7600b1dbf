"""The examples of docs/harness.md run as they stand there."""

import re
from pathlib import Path

import pytest

from skep.testkit import harness

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[3] / "docs" / "harness.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run(pytester, block):
    pytester.makepyfile(block)
    return pytester.runpytest_subprocess(
        "-p", "pytest_asyncio", "-o", "asyncio_mode=auto", "-o", "markers=llama"
    )


def test_the_fake_example_passes(pytester):
    [block] = [one for one in BLOCKS if "fake:demo" in one]
    run(pytester, block).assert_outcomes(passed=1)


@pytest.mark.llama
def test_the_llama_example_passes(pytester):
    [block] = [one for one in BLOCKS if "TINY" in one]
    run(pytester, block).assert_outcomes(passed=1)


def test_the_table_names_what_the_harness_has():
    text = PAGE.read_text()
    for name in harness.__all__:
        assert name in text or name == "SseStream"
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    verbs = {name for row in rows for name in re.findall(r"`(\w+)\(", row.split("|")[1])}
    assert not {name for name in verbs if not hasattr(harness.WorkerHarness, name)}
