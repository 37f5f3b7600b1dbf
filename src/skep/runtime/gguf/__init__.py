"""The GGUF reader: a file's header as data, and the checks that keep a bad file from killing the process."""

from skep.runtime.gguf.file import preflight, preflight_adapter, read_header, split_parts, weights_bytes
from skep.runtime.gguf.header import ArrayValue, Header, MemoryTerms, Tensor
from skep.runtime.gguf.parse import parse

__all__ = [
    "ArrayValue",
    "Header",
    "MemoryTerms",
    "Tensor",
    "parse",
    "preflight",
    "preflight_adapter",
    "read_header",
    "split_parts",
    "weights_bytes",
]
