"""The small models that skep ships, made by scripts/models: one that answers, its variants, and files broken on purpose.

The tiny model is a llama with a million parameters, trained on text that is written in `scripts/models/corpus.py`.
Nothing in skep treats it in any special way.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from skep.errors import InternalFault

FOLDER: Final = Path(__file__).parent

TINY: Final = FOLDER / "tiny-f16.gguf"
"""F16, byte-level BPE, a chat template with system, tools and thinking. Its greedy answers are exact."""
TINY_Q8: Final = FOLDER / "tiny-q8_0.gguf"
"""The same weights in Q8_0; the same answers."""
TINY_LORA: Final = FOLDER / "tiny-lora.gguf"
"""A LoRA adapter of TINY with random factors: it changes what the model says."""
SPM: Final = FOLDER / "spm-f16.gguf"
"""A second tokenizer family (SentencePiece, byte fallback); random weights, so its text means nothing."""
MICRO: Final = FOLDER / "broken" / "micro.gguf"
"""The sound model of which the broken ones are made; random weights."""

PINS: Final[dict[str, str]] = {}
"""File, relative to this folder → sha256. `scripts/models/make.py --write` keeps it."""

BROKEN: Final = {
    Path(name).stem: FOLDER / name
    for name in PINS
    if name.startswith("broken/") and Path(name) != Path("broken/micro.gguf")
}
"""What is wrong with it → path: wrong-magic, truncated-data, missing-tensor, and more."""


def verify(names: Iterator[str] | None = None) -> None:
    """Check the files against their pins. Raises: InternalFault, naming each file that is missing or differs."""
    wrong = [name for name in names or PINS if _digest(FOLDER / name) != PINS[name]]
    if wrong:
        raise InternalFault(
            f"these model files are not the ones that skep ships: {', '.join(wrong)}; reinstall", files=wrong
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
