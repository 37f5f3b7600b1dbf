"""Load a file with its header mutated, once for each seed, and use what loads. Run by test_fuzz.py in a process of its own.

    python header_fuzzer.py SOURCE TARGET FIRST LAST

Says each seed before it is tried, so that whoever reads knows which one ended the process; a seed that takes longer
than HANG_S ends it too. The last line is `done REFUSED RAN`.
"""

import faulthandler
import random
import sys
from pathlib import Path

from skep.errors import SkepError
from skep.runtime import gguf
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.models import BERT, TINY, TINY_LORA

HANG_S = 30.0
PLACES_MAX = 40


class Mutator:
    """Changes a few bytes of a header: single ones, bits, counts made absurd, and pieces copied from elsewhere."""

    def __init__(self, source: Path) -> None:
        self._sound = source.read_bytes()
        self._end = gguf.read_header(source).data_offset
        self._texts = range(
            self._sound.find(b"tokenizer.ggml.tokens"), self._sound.find(b"tokenizer.ggml.token_type")
        )

    def mutated(self, chooser: random.Random) -> bytes:
        """Return the file with one to four changes."""
        data = bytearray(self._sound)
        for _ in range(chooser.choice([1, 1, 1, 2, 4])):
            at = self._place(chooser)
            match chooser.randrange(5):
                case 0:
                    data[at] = chooser.randrange(256)
                case 1:
                    data[at] ^= 1 << chooser.randrange(8)
                case 2:
                    data[at : at + 4] = chooser.choice([bytes(4), b"\xff" * 4, b"\x01\0\0\0", b"\0\0\0\x80"])
                case 3:
                    data[at : at + 8] = chooser.choice(
                        [bytes(8), b"\xff" * 8, (1 << 62).to_bytes(8, "little")]
                    )
                case _:
                    other, size = self._place(chooser), chooser.randrange(1, 16)
                    data[at : at + size] = data[other : other + size]
        return bytes(data)

    def _place(self, chooser: random.Random) -> int:
        # Most of a header is the vocabulary's text; most of what matters is not.
        at = chooser.randrange(8, self._end)
        for _ in range(PLACES_MAX):
            if at not in self._texts or chooser.random() < 0.1:
                break
            at = chooser.randrange(8, self._end)
        return at


def use(model: LlamaModel, *, embeds: bool) -> None:
    """Decode a token, and take every text of a vocabulary through the tokenizer and back."""
    options = SessionOptions(sequences=1, context=64, threads=1, threads_batch=1, embeddings=embeds)
    with model.open_session(options) as session:
        session.decode([Row(1, 0, 0, wants_logits=True)])
        session.logits(0)
    b"".join(map(model.piece, model.tokenize("hello <s> \u00e9 \u4e16 world", parse_special=True)))


def main(source: Path, target: Path, first: int, last: int) -> None:
    """Try the seeds from `first` up to `last`."""
    mutator, backend = Mutator(source), LlamaBackend()
    refused = ran = 0
    for seed in range(first, last):
        print(seed, flush=True)  # noqa: T201 - the test reads it
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        target.write_bytes(mutator.mutated(random.Random(seed)))
        model_path, adapters = (TINY, ((str(target), 1.0),)) if source.samefile(TINY_LORA) else (target, ())
        try:
            with backend.load(model_path, LoadOptions(lora_adapters=adapters)) as model:
                use(model, embeds=source.samefile(BERT))
        except SkepError:
            refused += 1
        else:
            ran += 1
    faulthandler.cancel_dump_traceback_later()
    print("done", refused, ran)  # noqa: T201 - as above


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
