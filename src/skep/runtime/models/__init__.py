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
    "bert-f32.gguf": "8e813e19e4d3c800b74aed580b0f378981b68a2c217cbbf93f5dbf03bae5b965",
    "broken/duplicate-token.gguf": "ddee733100bbbec7b0f740fca79a9db679e4b48f5cc3ea01c6373b1f92d3b2dc",
    "broken/empty.gguf": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "broken/lying-key-count.gguf": "eb5397710d54b9dd709e1a2cf2b3144c36ab46a2f31d9713ea745ef25258a45b",
    "broken/lying-tensor-count.gguf": "30ddd8c25d62704a670e871acef12dbad9ffdd27e2813844d31a1b345d6b4ffb",
    "broken/micro.gguf": "4a89e983166c05e5ebbc88772159a3b0dc831f2a975911b3cac4be0adfe1d89c",
    "broken/misshapen-tensor.gguf": "38a5805ab2eafc7baad69281d33d0030549d8b65a0fe19fde26f64adaf11b346",
    "broken/missing-embedding.gguf": "66fe99773b741be6c3a2c0d2bd9b712a2923eb516f89f7b6d9247310b1c4181e",
    "broken/missing-tensor.gguf": "2899891525af773cc334ec88055528bbec0230d1ff3fc02ed6d71cbb309708c8",
    "broken/more-layers-than-tensors.gguf": "d13d7fb467c38d41c657a95436396d72adabc1b6681cc361e770d45744835b34",
    "broken/nan-weights.gguf": "78507ab2f55938721a3b9eb61e1faabfd9bedb901b9b8f3e05112fcdd5a8e91f",
    "broken/negative-epsilon.gguf": "a6764403bbca8851a2f92e5872846fef66624929d6b61f58ff42049c39970f55",
    "broken/too-many-layers.gguf": "c091f576819f6d54ab9af76b07808e6b47ff2fbde0d834b4e9368053b4fc0fc8",
    "broken/truncated-data.gguf": "6eaf1ad19069d519053b519554678db18283556cc672d34a95f262db75892d6b",
    "broken/truncated-header.gguf": "81bcded2028b2376bc7e223f77eb1eec1f0f17b4f35e3dbb939c4a26aacd0b5e",
    "broken/unknown-architecture.gguf": "87508641a876a9ea3136067f03b1b216742c938738bf046a6043ca66fa70913a",
    "broken/wrong-magic.gguf": "2d2b2199c15e0233b6874f37f50a6668a9a4cd13ad55997cb6d75e95a2f85664",
    "broken/wrong-version.gguf": "ea3935bd7acd663c51e2f02562e43f90bc260545c18733764099a61846a11a2a",
    "spm-f16.gguf": "147c0b5ee0c3542b90203f55ca7261317061545b36b14b2edc6faddaf0933145",
    "tiny-f16.gguf": "238a76031476af1fa98dae87254ac651fe5b0110c369ae0a753e35b8225b36a9",
    "tiny-lora.gguf": "3a5dab5dac647f4cee7383b2dda9d8da5326f857e4fdf48ae7fa46fd9a6a422c",
    "tiny-q8_0.gguf": "c0788c2a37c5779254a914e432df14e304d0087b9bf9eafedb4fb6dd1720c18d",
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
