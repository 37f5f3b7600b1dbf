"""The examples of docs/runtime.md run as they stand."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.runtime.models import TINY

GUIDE = Path(__file__).parents[3] / "docs" / "runtime.md"
EXAMPLES = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Compute threads wait for each other by spinning, and other tests want the other cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def needs_llama(code: str) -> bool:
    return '"model.gguf"' in code


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=title, marks=[pytest.mark.llama] if needs_llama(code) else [])
        for title, code in EXAMPLES
    ],
)
def test_an_example_of_the_guide_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.gguf").symlink_to(TINY)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/runtime.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


def test_the_guide_has_its_examples() -> None:
    assert len(EXAMPLES) == GUIDE.read_text().count("```python")
