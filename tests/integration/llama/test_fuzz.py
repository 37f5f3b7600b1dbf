"""Headers mutated at random, through the pre-flight and into the library: a typed error or a run, never a dead process."""

import subprocess
import sys
from pathlib import Path

import pytest

from skep.runtime.models import BERT, MICRO, TINY_LORA

pytestmark = pytest.mark.llama

FUZZER = Path(__file__).with_name("header_fuzzer.py")
SWEEP = Path(__file__).with_name("type_sweep.py")
SEEDS_EACH = 2_000
SOAK = [
    *(pytest.param(MICRO, range(at, at + 10_000), id=f"micro-{at}") for at in range(0, 50_000, 10_000)),
    *(pytest.param(BERT, range(at, at + 10_000), id=f"bert-{at}") for at in range(0, 40_000, 10_000)),
    pytest.param(TINY_LORA, range(10_000), id="lora"),
]
"""100,000 headers: models, an encoder, an adapter."""


def counts(program: Path, *arguments: object) -> tuple[int, int]:
    """Run a program that tries many files; return how many were refused and how many ran."""
    argv = [sys.executable, program, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert last.startswith("done "), f"{last!r} ended with {done.returncode}: {done.stderr[-500:]}"
    refused, ran = map(int, last.split()[1:])
    return refused, ran


def fuzz(source: Path, seeds: range, folder: Path) -> tuple[int, int]:
    """Try every seed, some in each process."""
    found = [
        counts(FUZZER, source, folder / "mutated.gguf", first, min(first + SEEDS_EACH, seeds.stop))
        for first in range(seeds.start, seeds.stop, SEEDS_EACH)
    ]
    return sum(refused for refused, _ in found), sum(ran for _, ran in found)


@pytest.mark.parametrize("source", [MICRO, BERT, TINY_LORA], ids=lambda path: path.stem)
def test_no_mutated_header_ends_the_process(source: Path, tmp_path: Path) -> None:
    refused, ran = fuzz(source, range(60), tmp_path)
    assert refused > 20
    assert ran > 0


@pytest.mark.parametrize("source", [MICRO, BERT], ids=lambda path: path.stem)
def test_no_type_of_a_tensor_ends_the_process(source: Path, tmp_path: Path) -> None:
    refused, _ = counts(SWEEP, source, tmp_path / "typed.gguf")
    assert refused > 200


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("source", "seeds"), SOAK)
def test_no_hundred_thousand_mutated_headers_end_the_process(
    source: Path, seeds: range, tmp_path: Path
) -> None:
    refused, ran = fuzz(source, seeds, tmp_path)
    assert refused + ran == len(seeds)
