#!/usr/bin/env python3
"""Makes every model file that skep ships: nothing is downloaded, the text is generated, the weights are trained here.

    python scripts/models/make.py --check             # rebuild all but the training, compare byte for byte
    python scripts/models/make.py --write             # the same, into the package, and pin the checksums
    python scripts/models/make.py --train out.gguf    # train anew (torch 2.13.0, one core, 25 minutes)
    python scripts/models/make.py --train out.gguf --steps 20

Needs `gguf`, `numpy` and `jinja2` (skep's development environment); only --train needs torch. Corpus, vocabulary,
header, the quantised file, the SentencePiece one, the adapter and the broken ones come out the same on every machine.
Trained weights do not (floating point differs over CPUs), so the F16 file's own weights are what --check starts from.
"""

import argparse
import hashlib
import random
import re
import sys
import tempfile
from pathlib import Path

import corpus
from architecture import SPM, TINY, Weights, noise, random_weights
from broken import write_broken
from encoder import write_encoder
from vocabulary import Bpe, sentencepiece
from writing import bpe_tokenizer, read_weights, spm_tokenizer, write_adapter, write_model

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "skep" / "runtime" / "models"
TINY_NAME = "tiny-f16.gguf"
PIN = re.compile(r'^    "(?P<name>[\w./-]+\.gguf)": "(?P<sha256>[0-9a-f]{64})",$', re.MULTILINE)

PIN_TABLE = re.compile(r"(^PINS: Final\[dict\[str, str\]\] = \{\n).*?^\}", re.MULTILINE | re.DOTALL)


def build(folder: Path, weights: Weights) -> None:
    """Write every file into `folder`; `weights` are the trained ones, as the F16 file holds them."""
    text = corpus.vocabulary_text()
    bpe = Bpe(text)
    for name, file_type in ((TINY_NAME, "f16"), ("tiny-q8_0.gguf", "q8_0")):
        write_model(
            folder / name, TINY, bpe.tokens, weights, name="skep-tiny", file_type=file_type,
            template=corpus.TEMPLATE, tokenizer=bpe_tokenizer,
        )  # fmt: skip
    write_model(
        folder / "spm-f16.gguf", SPM, sentencepiece(text), random_weights(SPM, seed=3), name="skep-spm",
        tokenizer=spm_tokenizer,
    )  # fmt: skip
    write_encoder(folder / "bert-f32.gguf", text)
    write_adapter(folder / "tiny-lora.gguf", _adapter(), alpha=32.0)
    broken = folder / "broken"
    broken.mkdir(exist_ok=True)
    write_broken(broken, text)


def _adapter() -> dict[str, tuple]:
    """Return random factors for the feed-forward outputs: enough to change what the model says."""
    rng, rank = random.Random(11), 4
    return {
        f"blk.{layer}.ffn_down.weight": (
            noise(rng, (rank, TINY.feed_forward), scale=TINY.feed_forward**-0.5),
            noise(rng, (TINY.embedding, rank), scale=0.5),
        )
        for layer in range(TINY.layers)
    }


def train(path: Path, steps: int | None) -> None:
    import training

    bpe = Bpe(corpus.vocabulary_text())
    weights = training.train(TINY, bpe, steps=steps or training.STEPS)
    write_model(
        path, TINY, bpe.tokens, weights, name="skep-tiny", template=corpus.TEMPLATE, tokenizer=bpe_tokenizer
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.gguf"))
    }


def check() -> int:
    """Rebuild into a temporary folder; report what differs from the package and from its pins."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, read_weights(PACKAGE / TINY_NAME))
        rebuilt = digests(folder)
    pinned = {match["name"]: match["sha256"] for match in PIN.finditer(_table().read_text())}
    failures = 0
    for file in sorted(rebuilt.keys() | pinned.keys()):
        same = rebuilt.get(file) == pinned.get(file)
        failures += not same
        print(f"{'same' if same else 'DIFFERS'}  {file}")
    return 1 if failures else 0


def write() -> None:
    build(PACKAGE, read_weights(PACKAGE / TINY_NAME))
    lines = "".join(f'    "{name}": "{digest}",\n' for name, digest in digests(PACKAGE).items())
    table = _table()
    table.write_text(PIN_TABLE.sub(rf"\g<1>{lines}}}", table.read_text()))


def _table() -> Path:
    return PACKAGE / "__init__.py"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="rebuild and compare")
    parser.add_argument("--write", action="store_true", help="rebuild into the package and pin the checksums")
    parser.add_argument("--train", type=Path, metavar="FILE", help="train a new F16 file")
    parser.add_argument("--steps", type=int, help="training steps, where fewer are enough")
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps)
    if options.write:
        write()
    return check() if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
