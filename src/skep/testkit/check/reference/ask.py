"""What a request asks for, or why it is refused; each refusal can be left out, to be found missing."""

from dataclasses import dataclass
from typing import Any

import msgspec

CONTEXT = 6000
MAX_TOKENS_DEFAULT = 16
N_MAX, TOP_LOGPROBS_MAX = 8, 20


class Refused(Exception):
    """Ends a request with a status and OpenAI's error object."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that was understood."""

    prompt: str
    is_stream: bool
    max_tokens: int
    temperature: float
    seed: int | None
    n: int
    stop: tuple[str, ...]
    ignore_eos: bool
    with_usage: bool
    top_logprobs: int | None
    is_json: bool
    tool: str

    @property
    def prompt_tokens(self) -> int:
        """Its length in words, and one to begin with."""
        return len(self.prompt.split()) + 1


def parse(raw: bytes, *, model: str, faults: frozenset[str]) -> Ask:
    """Return what is asked. Raises: Refused, unless a fault lets it through."""
    body = _decoded(raw, faults)
    if body.get("model") != model and "errors.unknown-model" not in faults:
        raise Refused(404, f"there is no model {body.get('model')!r}")
    prompt = _prompt(body, faults)
    if "errors.wrong-types" not in faults:
        _check_types(body)
    if "errors.bad-parameters" not in faults:
        _check_ranges(body)
    if len(prompt.split()) > CONTEXT and "errors.too-long" not in faults:
        raise Refused(400, f"the prompt is longer than {CONTEXT} tokens")
    stop = body.get("stop") or ()
    tools = body.get("tools") or [{}]
    return Ask(
        prompt=prompt,
        is_stream=body.get("stream") is True,
        max_tokens=_number(body, "max_tokens", MAX_TOKENS_DEFAULT),
        temperature=float(_number(body, "temperature", 1)),
        seed=body.get("seed"),
        n=max(_number(body, "n", 1), 1),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=bool(body.get("ignore_eos")),
        with_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        top_logprobs=body.get("top_logprobs") if body.get("logprobs") else None,
        is_json=(body.get("response_format") or {}).get("type") == "json_object",
        tool=str((tools[0].get("function") or {}).get("name") or ""),
    )


def _decoded(raw: bytes, faults: frozenset[str]) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if "errors.malformed-json" in faults:
            raise Refused(500, "internal error") from error
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is not an object")
    return body


def _prompt(body: dict[str, Any], faults: frozenset[str]) -> str:
    messages = body.get("messages", body.get("prompt"))
    if not messages:
        if "errors.missing-fields" in faults:
            return "nothing"
        raise Refused(400, "messages: is missing or empty")
    if isinstance(messages, str):
        if "prompt" in body or "errors.wrong-types" in faults:
            return messages
        raise Refused(400, "messages: must be an array")
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and "content" in one for one in messages
    ):
        if "errors.wrong-types" in faults:
            return "nothing"
        raise Refused(400, "messages: each must be an object with content")
    return " ".join(str(one["content"]) for one in messages)


def _check_types(body: dict[str, Any]) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "max_tokens": (int,),
        "n": (int,),
        "seed": (int,),
        "temperature": (int, float),
        "top_p": (int, float),
        "stream": (bool,),
        "stop": (str, list),
    }
    for name, kind in kinds.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise Refused(400, f"{name}: is of another type")


def _check_ranges(body: dict[str, Any]) -> None:
    ranges = {
        "temperature": (0, 2),
        "top_p": (0, 1),
        "n": (1, N_MAX),
        "max_tokens": (1, 1 << 20),
        "top_logprobs": (0, TOP_LOGPROBS_MAX),
    }
    for name, (least, most) in ranges.items():
        value = body.get(name)
        if value is not None and not least <= value <= most:
            raise Refused(400, f"{name}: must be from {least} to {most}")


def _number(body: dict[str, Any], name: str, default: int) -> Any:
    value = body.get(name)
    return value if isinstance(value, int | float) else default
