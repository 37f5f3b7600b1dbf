"""Load a file once for each of its tensors in each other type, and use what loads. Run by test_fuzz.py in a process of its own.

    python type_sweep.py SOURCE TARGET

Says each tensor and type before it is tried; the last line is `done REFUSED RAN`.
"""

import struct
import sys
from pathlib import Path

from header_fuzzer import use

from skep.errors import SkepError
from skep.runtime import gguf
from skep.runtime.backend import LoadOptions
from skep.runtime.gguf.tables import TENSOR_TYPES
from skep.runtime.llama import LlamaBackend
from skep.runtime.models import BERT


def main(source: Path, target: Path) -> None:
    """Try them all."""
    sound, backend = source.read_bytes(), LlamaBackend()
    refused = ran = 0
    for tensor in gguf.read_header(source).tensors:
        name = tensor.name.encode()
        # gguf.h: the name with its length, the number of dimensions, the dimensions, the type.
        named = struct.pack("<Q", len(name)) + name
        at = sound.index(named) + len(named) + 4 + 8 * len(tensor.shape)
        assert struct.unpack_from("<I", sound, at)[0] == tensor.kind
        for kind in TENSOR_TYPES.keys() - {tensor.kind}:
            print(tensor.name, TENSOR_TYPES[kind][0], flush=True)  # noqa: T201 - the test reads it
            data = bytearray(sound)
            struct.pack_into("<I", data, at, kind)
            target.write_bytes(data)
            try:
                with backend.load(target, LoadOptions()) as model:
                    use(model, embeds=source.samefile(BERT))
            except SkepError:
                refused += 1
            else:
                ran += 1
    print("done", refused, ran)  # noqa: T201 - as above


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
