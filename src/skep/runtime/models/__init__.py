"""The small models that skep ships, made by scripts/models: one that answers, its variants, and files broken on purpose.

The tiny model is a llama with a million parameters, trained on text that is written in `scripts/models/corpus.py`.
Nothing in skep treats it in any special way.
"""

import hashlib
from collections.abc import Iterable
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
BERT: Final = FOLDER / "bert-f32.gguf"
"""An encoder that only embeds (WordPiece vocabulary, mean pooling, 128 positions); random weights."""
MICRO: Final = FOLDER / "broken" / "micro.gguf"
"""The sound model of which the broken ones are made; random weights."""

PINS: Final[dict[str, str]] = {
    "bert-f32.gguf": "c172574e7b27b32f66f837c217359919b08b615c0c7c46ea35ff65e38631e812",
    "broken/duplicate-token.gguf": "a4f56f767b00254a0ffcc434b2319d72aa0914a31ae05054a4f343763b286345",
    "broken/empty.gguf": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "broken/lying-key-count.gguf": "4f96fca50287d8a1f4793bd6105c74083375c3cef751b0931501f0abc249bb1a",
    "broken/lying-tensor-count.gguf": "9a067f597d8667e6ec22d491ffd7682efccc3959520af0c455c774615c331d46",
    "broken/micro.gguf": "91018c5c692e51f208c0da7514118615f38964b05811a9cba3a3fc91733dff59",
    "broken/misshapen-tensor.gguf": "2c869ccdec375729adb1138940fa993913a3017ae59382d20885575735b8e072",
    "broken/missing-embedding.gguf": "80a74f52eaa2d503d958bfe28dda4b9f3f58b84e248623fe5e2dee645298adf1",
    "broken/missing-tensor.gguf": "bdd61ac1389135b4356b7fbc138beb2b5b8f645659736c5568ea9b1aee5bbc08",
    "broken/more-layers-than-tensors.gguf": "43199647128d906a2ff8e33b24978a11ab205dd264412602e7f3630a3d090d86",
    "broken/nan-weights.gguf": "9fc88b71c53218e71e7d2d4c3a5c136fe285b6bfcf99e85301f638d0b44617bc",
    "broken/negative-epsilon.gguf": "688bb6969bd1a3ad2afc2f486583d9643f7379a267aa0c011a1e41f7401af630",
    "broken/too-many-layers.gguf": "fbb5521bcf685b6f98d7afdb7b64d73ff410156c7bcac67825d70fb09691549e",
    "broken/truncated-data.gguf": "bc5ee6ececc711f48071a6b0d5e6e83fbb7870c61e0d1b2da9f23a16cc26dc69",
    "broken/truncated-header.gguf": "81bcded2028b2376bc7e223f77eb1eec1f0f17b4f35e3dbb939c4a26aacd0b5e",
    "broken/unknown-architecture.gguf": "7eeab26c77a461378998f370ff29a4cdfcca2fd09f8013e65f3d8668974ca181",
    "broken/wrong-magic.gguf": "eb1532f9a87f9fc21688dd1e53fb9b2a3ef94a2222a2772f7c64cba30da7af2f",
    "broken/wrong-version.gguf": "95277e3afafd49b7805b6e02c1ee3dd76fcffd674deabcfe51c6a7aa3ff03c76",
    "spm-f16.gguf": "d57d584aace96e5dfd92e57c50addcebeaef747b63b6462e8dbc543cf0dbfbda",
    "tiny-f16.gguf": "dec1cac5ca2fc3a7865bb2b904d4803a3804d6b9eb71f94536dbfd9833761fc6",
    "tiny-lora.gguf": "3a5dab5dac647f4cee7383b2dda9d8da5326f857e4fdf48ae7fa46fd9a6a422c",
    "tiny-q8_0.gguf": "512209feba257d750548278e2dfcee088f3ea0ff19a794a563c4d78c87c65cc2",
}
"""File, relative to this folder → sha256. `scripts/models/make.py --write` keeps it."""

BROKEN: Final = {
    Path(name).stem: FOLDER / name
    for name in PINS
    if name.startswith("broken/") and Path(name) != Path("broken/micro.gguf")
}
"""What is wrong with it → path: wrong-magic, truncated-data, missing-tensor, and more."""


def verify(names: Iterable[str] | None = None) -> None:
    """Check the files against their pins. Raises: InternalFault, naming each file that is missing or differs."""
    wrong = [name for name in names or PINS if _digest(FOLDER / name) != PINS[name]]
    if wrong:
        raise InternalFault(
            f"these model files are not the ones that skep ships: {', '.join(wrong)}; reinstall", files=wrong
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
