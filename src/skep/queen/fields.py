"""The few fields of a request's body that routing reads; everything else passes through untouched."""

import msgspec

from skep.errors import InvalidInput
from skep.errors.wire import MalformedJson
from skep.policy.placement import prefix_key, text_key

MODEL_CHARS_MAX = 256
SESSION_CHARS_MAX = 256


class _Body(msgspec.Struct):
    """What is read; wrong types elsewhere are the worker's to name."""

    model: str | None = None
    stream: bool | None = None
    prompt_cache_key: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()


class Fields(msgspec.Struct, frozen=True):
    """A request as routing sees it. A key of 0 is none."""

    model: str
    stream: bool
    session_key: int
    prefix_key: int
    prompt_bytes: int


_decoder = msgspec.json.Decoder(_Body)


def read_fields(body: bytes, *, session: str = "") -> Fields:
    """Read the routing fields. Raises: MalformedJson, InvalidInput (with `param`)."""
    try:
        found = _decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise InvalidInput(
            f"{where.rstrip('`') or 'the body'}: {what}", param=where.rstrip("`") or None
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(f"the body is not a JSON object: {error}") from error
    if not found.model:
        raise InvalidInput(
            "model is required: name the model to ask (GET /v1/models lists them)", param="model"
        )
    if len(found.model) > MODEL_CHARS_MAX:
        raise InvalidInput(f"model is longer than {MODEL_CHARS_MAX} characters", param="model")
    prompt = bytes(found.messages or found.prompt or found.input)
    pin = (session or found.prompt_cache_key or "")[:SESSION_CHARS_MAX]
    return Fields(
        model=found.model,
        stream=bool(found.stream),
        session_key=text_key(pin),
        prefix_key=prefix_key(prompt),
        prompt_bytes=len(prompt),
    )


def prompt_of(body: bytes) -> bytes:
    """Return the prompt of a body that `read_fields` has read, as JSON."""
    found = _decoder.decode(body)
    return bytes(found.messages or found.prompt or found.input)


def renamed(body: bytes, model: str) -> bytes:
    """Return a body that `read_fields` has read with another model's name; every other value keeps its bytes."""
    values = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    values["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(values)
