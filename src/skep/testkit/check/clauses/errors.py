"""What is wrong with a request is said: the right status, OpenAI's error object, no hang, no harm."""

from collections.abc import Iterable
from typing import Any

from skep.testkit.check.clause import HTTP, OPENAI, clause
from skep.testkit.check.probe import CHAT, Answer, Probe
from skep.testkit.check.verdict import Broken, Severity, Unsupported, require

REFUSED = frozenset({400, 422})
TOO_LONG_WORDS = 400_000
HUGE_BYTES = 32 << 20
_OK = 200


def _refused(answer: Answer, what: str, statuses: Iterable[int] = REFUSED) -> None:
    wanted = " or ".join(str(one) for one in sorted(statuses))
    require(
        answer.status in set(statuses), f"{what} is answered with {answer.status}, not {wanted}", answer.trace
    )


@clause("errors.malformed-json", "A body that is not JSON is refused with 400", source=OPENAI)
async def malformed_json(probe: Probe) -> None:
    """Also one that was cut, and one that is no UTF-8."""
    for raw in (b'{"model": ', b"not json", b'{"model": "\xff\xfe"}', b""):
        _refused(await probe.send("POST", CHAT, raw=raw), f"{raw!r}")


@clause("errors.wrong-types", "Fields of a wrong type are refused with 400", source=OPENAI)
async def wrong_types(probe: Probe) -> None:
    """Never guessed at."""
    for change in (
        {"messages": "hello"},
        {"messages": [7]},
        {"max_tokens": "many"},
        {"temperature": "hot"},
        {"stream": "perhaps"},
        {"stop": {"a": 1}},
    ):
        _refused(await probe.send("POST", CHAT, probe.asking() | change), f"{change}")


@clause("errors.missing-fields", "A request without messages is refused with 400", source=OPENAI)
async def missing_fields(probe: Probe) -> None:
    """And one whose messages are empty."""
    wrong: list[Any] = [{"model": probe.target.model}, {"model": probe.target.model, "messages": []}, []]
    for body in wrong:
        _refused(await probe.send("POST", CHAT, body), f"{body}")


@clause(
    "errors.bad-parameters",
    "Parameters out of their range are refused with 400",
    source=OPENAI,
    severity=Severity.SHOULD,
)
async def bad_parameters(probe: Probe) -> None:
    """Not clamped in silence."""
    for change in (
        {"temperature": -1},
        {"temperature": 99},
        {"top_p": 7},
        {"n": 0},
        {"max_tokens": -5},
        {"top_logprobs": 500, "logprobs": True},
    ):
        _refused(await probe.send("POST", CHAT, probe.asking() | change), f"{change}")


@clause("errors.unknown-model", "A model that is not there is 404", source=OPENAI, severity=Severity.SHOULD)
async def unknown_model(probe: Probe) -> None:
    """Not answered by another one."""
    answer = await probe.send("POST", CHAT, probe.asking() | {"model": "no-such-model-here"})
    _refused(answer, "an unknown model", {404, 400})


@clause(
    "errors.too-long",
    "A prompt beyond the context is refused with 400 or 413, not cut in silence",
    source=OPENAI,
)
async def too_long(probe: Probe) -> None:
    """Some hundred thousand words."""
    answer = await probe.send("POST", CHAT, probe.asking("bee " * TOO_LONG_WORDS))
    _refused(answer, "a prompt beyond the context", {400, 413, 422})


@clause("errors.huge-body", "A body of 32 MiB is refused, and in time", source=HTTP, is_chaos=True)
async def huge_body(probe: Probe) -> None:
    """413 is the word; a closed connection is understood as well."""
    raw = b'{"messages": "' + b"x" * HUGE_BYTES + b'"}'
    try:
        answer = await probe.send("POST", CHAT, raw=raw)
    except Broken as error:
        require("no answer within" not in error.detail, error.detail, "> 32 MiB")
        return
    _refused(answer, "a body of 32 MiB", {400, 413, 422})


@clause("errors.wrong-method", "A wrong method is 405 (or 404)", source=HTTP)
async def wrong_method(probe: Probe) -> None:
    """GET and DELETE of the chat endpoint."""
    for method in ("GET", "DELETE"):
        _refused(await probe.send(method, CHAT), method, {404, 405})


@clause("errors.unknown-route", "A route that is not there is 404", source=HTTP)
async def unknown_route(probe: Probe) -> None:
    """Under /v1, where gateways forward."""
    _refused(await probe.send("POST", "/v1/no/such/route", {}), "an unknown route", {404, 405})


@clause("errors.object", "Errors are OpenAI's object: error with a message and a type", source=OPENAI)
async def error_object(probe: Probe) -> None:
    """For a body that is not JSON, and for one of wrong types."""
    for raw, body in ((b"{", None), (None, {"model": probe.target.model, "messages": "x"})):
        answer = await probe.send("POST", CHAT, body, raw=raw)
        error: Any = answer.json().get("error")
        require(isinstance(error, dict), "the body has no error object", answer.trace)
        for name in ("message", "type"):
            require(
                isinstance(error.get(name), str) and error[name],
                f"error.{name} is {error.get(name)!r}",
                answer.trace,
            )


@clause(
    "errors.streaming-refusal",
    "A bad streaming request is refused by its status, before any event",
    source=OPENAI,
)
async def streaming_refusal(probe: Probe) -> None:
    """A 200 that then says that it was wrong reaches nobody's error handling."""
    answer = await probe.send("POST", CHAT, {"model": probe.target.model, "messages": "x", "stream": True})
    _refused(answer, "a bad streaming request")


@clause("errors.no-key", "A wrong API key is 401", source=OPENAI)
async def no_key(probe: Probe) -> None:
    """Asked only where a key is needed."""
    if not probe.target.api_key:
        raise Unsupported("no --api-key was given")
    for value in ("Bearer wrong", "Basic eA==", "Bearer"):
        answer = await probe.send("POST", CHAT, probe.asking(), headers={"authorization": value})
        _refused(answer, f"authorization {value!r}", {401, 403})


@clause("errors.lives-on", "After bad requests of every kind a good one is answered as before", source=OPENAI)
async def lives_on(probe: Probe) -> None:
    """Nothing leaks from one request into the next."""
    before = (await probe.chat()).json()["choices"][0]["message"]
    for raw in (b"{", b'{"messages": [{"role": "user"}]}', b'{"messages": null}', b"[]", b"\x00" * 64):
        answer = await probe.send("POST", CHAT, raw=raw)
        require(answer.status != _OK, f"{raw[:40]!r} is answered with {answer.status}", answer.trace)
    answer = await probe.chat()
    require(
        answer.json()["choices"][0]["message"] == before,
        "the same request is answered otherwise",
        answer.trace,
    )
