"""Headers mutated at random, through the pre-flight and into the library: a typed error or a run, never a dead process."""

import subprocess
import sys
from pathlib import Path

import pytest

from skep.runtime.models import BERT, MICRO, TINY_LORA

pytestmark = pytest.mark.llama

CHILD = """
import random, sys
from pathlib import Path
from skep.errors import SkepError
from skep.runtime import gguf
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.models import BERT, MICRO, TINY, TINY_LORA

source, target, first, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sound, end = source.read_bytes(), gguf.read_header(source).data_offset
tokens = sound.find(b"tokenizer.ggml.tokens"), sound.find(b"tokenizer.ggml.token_type")
backend, is_adapter, is_encoder = LlamaBackend(), source == TINY_LORA, source == BERT

def place(rng):
    # Most of a header is the vocabulary's text; most of what matters is not.
    at = rng.randrange(8, end)
    return at if not tokens[0] < at < tokens[1] or rng.random() < 0.1 else place(rng)

def mutated(rng):
    data = bytearray(sound)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = place(rng)
        match rng.randrange(5):
            case 0: data[at] = rng.randrange(256)
            case 1: data[at] ^= 1 << rng.randrange(8)
            case 2: data[at:at + 4] = rng.choice([bytes(4), b"\\xff" * 4, b"\\x01\\0\\0\\0", b"\\0\\0\\0\\x80"])
            case 3: data[at:at + 8] = rng.choice([bytes(8), b"\\xff" * 8, (1 << 62).to_bytes(8, "little")])
            case 4:
                other, size = place(rng), rng.randrange(1, 16)
                data[at:at + size] = data[other:other + size]
    return bytes(data)

def use(model):
    options = SessionOptions(sequences=1, context=64, threads=1, embeddings=is_encoder)
    with model.open_session(options) as session:
        session.decode([Row(1, 0, 0, True)])
        session.logits(0)
    b"".join(map(model.piece, model.tokenize("hello <s> \\u00e9 \\u4e16 world", parse_special=True)))

for seed in range(first, last):
    print(seed, flush=True)
    target.write_bytes(mutated(random.Random(seed)))
    try:
        adapters = ((str(target), 1.0),) if is_adapter else ()
        with backend.load(TINY if is_adapter else target, LoadOptions(lora_adapters=adapters)) as model:
            use(model)
    except SkepError:
        pass
print("done")
"""


@pytest.mark.parametrize(
    "count", [60, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("source", [MICRO, BERT, TINY_LORA], ids=lambda path: path.stem)
def test_no_mutated_header_ends_the_process(source: Path, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, tmp_path / "mutated.gguf", "0", str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["done"], f"seed {lines[-1:]} ended with {done.returncode}: {done.stderr[-500:]}"
