"""What a fake model does: the parameters, and the `fake:NAME?key=value&…` reference that carries them."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

import skep.errors.runtime as runtime_errors
from skep.errors import InvalidInput, SkepError
from skep.runtime.fake.vocabulary import VOCAB_SIZE_MIN

SCHEME = "fake:"
VOCAB_SIZE_MAX = 1_000_000


class FakeScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a fake model can be told. Counters count decode calls of one loaded model, from 1; 0 means never.

    `text` is the one answer that the model knows by heart: it continues whatever part of it the sequence already
    ends with, then ends. Without it the model babbles, and ends a chat turn after `turn_tokens` tokens.
    `token_delay_ms` is spent in every decode, `row_delay_us` in addition for each row of it.
    `fail_load` and `fail_decode` name an error by its code (`gguf_truncated`, `device_out_of_memory`, …).
    `batch_noise` makes low bits of the logits depend on batch-mates and chunk borders, as real kernels do.
    `memory_bytes` are the weights', in equal parts over the `layers`; those on a device and the cache there must fit
    into its `device_memory_bytes` (0: as much as they need).
    `cache_cells` bounds the whole cache below `sequences × context`. `only_embeds` makes it an encoder.
    """

    name: str = "fake"
    text: str = ""
    vocab: int = VOCAB_SIZE_MIN
    context_train: int = 8192
    turn_tokens: int = 48
    load_delay_ms: float = 0.0
    token_delay_ms: float = 0.0
    row_delay_us: float = 0.0
    memory_bytes: int = 64 * 2**20
    layers: int = 1
    device_memory_bytes: int = 0
    cache_cells: int = 0
    batch_noise: bool = False
    only_embeds: bool = False
    fail_load: str = ""
    fail_decode: str = "decode_failed"
    fail_decode_after: int = 0
    fail_decode_times: int = 1
    hang_after: int = 0
    abort_after: int = 0


def error_of(code: str) -> type[SkepError]:
    """Return the runtime error class with this code. Raises: InvalidInput."""
    for found in vars(runtime_errors).values():
        if isinstance(found, type) and issubclass(found, SkepError) and found.code == code:
            return found
    raise InvalidInput(f"no runtime error has the code {code!r}", code=code)


def check(script: FakeScript) -> FakeScript:
    """Return `script` unchanged. Raises: InvalidInput."""
    if not VOCAB_SIZE_MIN <= script.vocab <= VOCAB_SIZE_MAX:
        raise InvalidInput(f"vocab must be between {VOCAB_SIZE_MIN} and {VOCAB_SIZE_MAX}", field="vocab")
    for code in filter(None, (script.fail_load, script.fail_decode)):
        error_of(code)
    if script.layers < 1:
        raise InvalidInput("layers must be at least 1", field="layers")
    numbers = {
        field: value for field, value in msgspec.structs.asdict(script).items() if field != "batch_noise"
    }
    for field, value in numbers.items():
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise InvalidInput(f"{field} must not be negative", field=field)
    return script


def parse_reference(reference: str) -> FakeScript:
    """Read `fake:NAME?key=value&…`; values are percent-decoded. Raises: InvalidInput."""
    name, _, query = reference.removeprefix(SCHEME).partition("?")
    fields: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    try:
        script = msgspec.convert({"name": name or "fake", **fields}, FakeScript, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"the fake model reference {reference!r} is wrong: {error}", ref=reference
        ) from error
    return check(script)


def script_for(path: Path) -> FakeScript | None:
    """Return the script that a path names: a reference, or the default for a file that exists, or None."""
    if str(path).startswith(SCHEME):
        return parse_reference(str(path))
    return FakeScript(name=path.stem) if path.is_file() else None
