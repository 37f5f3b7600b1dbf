import pytest

from skep.errors import SkepError
from skep.errors.runtime import (
    DeviceError,
    DeviceOutOfMemory,
    GgufMalformed,
    GgufTruncated,
    InsufficientMemory,
    ModelLoadFailed,
    TensorMissing,
    UnsupportedArchitecture,
)
from skep.runtime.llama.log import (
    LEVEL_CONT,
    LEVEL_DEBUG,
    LEVEL_WARN,
    LINES_MAX,
    Log,
    compute_failure_kind,
    load_failure,
)

ERROR = 4
INFO = 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("error loading model: unknown model architecture: 'x'", UnsupportedArchitecture),
        ("check_tensor_dims: tensor 'token_embd.weight' has wrong shape", TensorMissing),
        ("error loading model: missing tensor 'blk.0.ffn_up.weight'", TensorMissing),
        ("tensor 'a' data is not within the file bounds, model is corrupted or incomplete", GgufTruncated),
        ("unable to allocate CPU buffer", InsufficientMemory),
        ("CUDA error: unspecified launch failure", DeviceError),
        ("tensor 'output_norm.weight' has invalid data", GgufMalformed),
        ("something else", ModelLoadFailed),
        ("", ModelLoadFailed),
    ],
)
def test_a_failed_load_becomes_the_narrowest_error(text: str, kind: type[SkepError]) -> None:
    error = load_failure(text, path="m.gguf")
    assert type(error) is kind
    assert error.path == "m.gguf"


def test_a_failed_computation_names_the_device_or_nothing() -> None:
    assert compute_failure_kind("CUDA0: out of memory") is DeviceOutOfMemory
    assert compute_failure_kind("CUDA error: illegal address") is DeviceError
    assert compute_failure_kind("odd") is None


def say(log: Log, level: int, text: bytes | None) -> None:
    log.callback(level, text, None)


def test_only_what_came_after_the_mark_is_a_complaint() -> None:
    log = Log()
    say(log, ERROR, b"old\n")
    mark = log.mark()
    say(log, INFO, b"loading\n")
    say(log, LEVEL_WARN, b"odd\n")
    say(log, ERROR, b"bad\n")
    assert log.complaint(mark) == "odd; bad"
    assert log.since(mark) == ["loading", "odd", "bad"]


def test_a_continued_line_has_the_level_of_its_beginning() -> None:
    log = Log()
    say(log, ERROR, b"bad ")
    say(log, LEVEL_CONT, b"thing\n")
    say(log, LEVEL_DEBUG, b"noise\n")
    say(log, LEVEL_CONT, b"more noise\n")
    assert log.since(0, level_min=ERROR) == ["bad", "thing"]


def test_bytes_that_are_no_text_and_null_do_no_harm() -> None:
    log = Log()
    say(log, ERROR, b"\xff\xfe")
    say(log, ERROR, None)
    assert len(log.since(0)) == 1


def test_the_ring_is_bounded() -> None:
    log = Log()
    for number in range(LINES_MAX + 10):
        say(log, INFO, b"%d" % number)
    lines = log.since(0)
    assert len(lines) == LINES_MAX
    assert lines[-1] == str(LINES_MAX + 9)
