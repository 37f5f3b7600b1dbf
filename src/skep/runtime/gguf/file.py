"""Files on disk: read no more of one than its header, and say what is wrong with it before a library sees it."""

import os
import re
from pathlib import Path
from typing import Final

from skep.errors.runtime import GgufMalformed, ModelLoadFailed, ModelNotFound, NotAGguf
from skep.runtime.gguf.check import check_adapter, check_model, check_tensors
from skep.runtime.gguf.header import Header
from skep.runtime.gguf.parse import Incomplete, parse

FIRST_READ_BYTES: Final = 1 << 20
HEADER_BYTES_MAX: Final = 1 << 28
SPLITS_MAX: Final = 1024
_GROWTH: Final = 4
_SPLIT_NAME: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def read_header(path: Path) -> Header:
    """Return the header of one GGUF file. Raises: ModelNotFound, NotAGguf, GgufMalformed, GgufTruncated, ModelLoadFailed."""
    try:
        if not path.is_file():
            why = "is a directory, not a file" if path.is_dir() else "does not exist"
            raise ModelNotFound(f"{path} {why}; give the path of a GGUF file", path=str(path))
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            if not file_bytes:
                raise NotAGguf(f"{path} is empty; fetch it again", path=str(path))
            return _read_growing(file.fileno(), file_bytes, path)
    except (OSError, ValueError) as error:
        raise ModelLoadFailed(f"{path} cannot be read: {error}", path=str(path)) from error


def preflight(path: Path) -> Header:
    """Return the header of a model that is safe to hand to the library; of a split model, its first part's.

    Raises: ModelNotFound (also of a part), NotAGguf, GgufMalformed, GgufTruncated, TensorMissing, ModelLoadFailed.
    """
    header = read_header(path)
    with _naming(path):
        check_model(header)
    for part in split_parts(path, header)[1:]:
        part_header = read_header(part)
        with _naming(part):
            check_tensors(part_header)
    return header


def preflight_adapter(path: Path) -> Header:
    """Return the header of a LoRA adapter that is safe to hand to the library. Raises: as `preflight`."""
    header = read_header(path)
    with _naming(path):
        check_adapter(header)
    return header


def split_parts(path: Path, header: Header) -> list[Path]:
    """Return the files of a model in order, `path` alone when it is not split.

    Raises: GgufMalformed (absurd count, a name that does not match, or not the first part).
    """
    if header.splits == 1:
        return [path]
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != header.splits or header.splits > SPLITS_MAX:
        raise GgufMalformed(
            f"{path} is one of {header.splits} parts, but its name does not end in -00001-of-{header.splits:05}.gguf",
            path=str(path),
        )
    if int(match["number"]) != 1:
        raise ModelLoadFailed(f"{path} is part {int(match['number'])}; load part 1 instead", path=str(path))
    return [
        path.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf")
        for number in range(1, header.splits + 1)
    ]


def weights_bytes(path: Path, header: Header) -> int:
    """Return the bytes of tensor data over all parts of a model. Raises: as `read_header`."""
    return header.weights_bytes + sum(
        read_header(part).weights_bytes for part in split_parts(path, header)[1:]
    )


def _read_growing(descriptor: int, file_bytes: int, path: Path) -> Header:
    """Parse a longer and longer prefix; vocabularies reach tens of megabytes, most headers fit the first read."""
    size = FIRST_READ_BYTES
    while True:
        data = os.pread(descriptor, min(size, file_bytes), 0)
        with _naming(path):
            try:
                # A file that shrinks while it is read ends where the data does.
                return parse(data, file_bytes=file_bytes if len(data) == min(size, file_bytes) else len(data))
            except Incomplete:
                if size >= HEADER_BYTES_MAX:
                    raise GgufMalformed(f"the header is over {HEADER_BYTES_MAX} bytes long") from None
        size *= _GROWTH


class _naming:  # noqa: N801 - reads as a verb in `with _naming(path)`
    """Puts the path into the message of what is raised within."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ModelLoadFailed) and "path" not in error.facts:
            raise type(error)(f"{self._path}: {error}", **{**error.facts, "path": str(self._path)}) from None
