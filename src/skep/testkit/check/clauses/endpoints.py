"""What the endpoints answer when all is well."""

from typing import Any

import msgspec

from skep.testkit.check.clause import OPENAI, clause
from skep.testkit.check.probe import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, Probe
from skep.testkit.check.verdict import Unsupported, require, unobservable

FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
TOOL = {
    "type": "function",
    "function": {
        "name": "sky_color",
        "description": "Tell the color of the sky.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@clause("endpoints.models", "GET /v1/models lists models, each with its id", source=OPENAI)
async def models(probe: Probe) -> str:
    """The one that is checked is among them."""
    answer = await probe.send("GET", MODELS)
    require(answer.status == 200, f"answered with {answer.status}", answer.trace)
    found = answer.json()
    require(found.get("object") == "list", f"object is {found.get('object')!r}", answer.trace)
    ids = [one.get("id") for one in found.get("data") or []]
    require(ids and all(isinstance(one, str) for one in ids), f"the ids are {ids}", answer.trace)
    require(probe.target.model in ids, f"{probe.target.model!r} is not among {ids[:8]}", answer.trace)
    return f"{len(ids)} models"


@clause(
    "endpoints.chat",
    "A chat answer has id, object, created, model, a choice with its message, and usage",
    source=OPENAI,
)
async def chat(probe: Probe) -> None:
    """The whole shape."""
    answer = await probe.chat()
    found = answer.json()
    kinds = {"id": str, "object": str, "created": int, "model": str, "choices": list, "usage": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]
    require(not wrong, f"missing or of another type: {', '.join(wrong)}", answer.trace)
    require(found["object"] == "chat.completion", f"object is {found['object']!r}", answer.trace)
    choice = found["choices"][0]
    require(choice.get("index") == 0, f"the choice's index is {choice.get('index')!r}", answer.trace)
    require(
        choice.get("finish_reason") in FINISHES,
        f"finish_reason {choice.get('finish_reason')!r}",
        answer.trace,
    )
    message = choice.get("message") or {}
    require(message.get("role") == "assistant", f"the role is {message.get('role')!r}", answer.trace)
    require("content" in message, "the message has no content", answer.trace)


@clause("endpoints.usage", "Usage counts the prompt, the completion, and their sum", source=OPENAI)
async def usage(probe: Probe) -> None:
    """And the completion is at most max_tokens."""
    answer = await probe.chat(max_tokens=5)
    told = answer.json().get("usage") or {}
    counts = [told.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    require(all(isinstance(one, int) for one in counts), f"usage is {told}", answer.trace)
    prompt, completion, total = (int(one or 0) for one in counts)
    require(prompt > 0, "the prompt has no tokens", answer.trace)
    require(0 <= completion <= 5, f"{completion} tokens for max_tokens 5", answer.trace)
    require(prompt + completion == total, f"{prompt} + {completion} is not {total}", answer.trace)


@clause("endpoints.completions", "A completion has its text, a finish_reason and usage", source=OPENAI)
async def completions(probe: Probe) -> None:
    """Where the older endpoint is offered."""
    body = {"model": probe.target.model, "prompt": "The sky is", "max_tokens": 4, "temperature": 0}
    answer = await probe.offered(COMPLETIONS, body, "completions")
    found = answer.json()
    require(found.get("object") == "text_completion", f"object is {found.get('object')!r}", answer.trace)
    choice = (found.get("choices") or [{}])[0]
    require(isinstance(choice.get("text"), str), "the choice has no text", answer.trace)
    require(
        choice.get("finish_reason") in FINISHES,
        f"finish_reason {choice.get('finish_reason')!r}",
        answer.trace,
    )


@clause("endpoints.embeddings", "Embeddings are vectors of numbers, one an input, in order", source=OPENAI)
async def embeddings(probe: Probe) -> str:
    """Where they are offered."""
    body = {"model": probe.target.model, "input": ["the sky", "a bee"]}
    answer = await probe.offered(EMBEDDINGS, body, "embeddings")
    data = answer.json().get("data") or []
    require([one.get("index") for one in data] == [0, 1], "not two vectors, in order", answer.trace)
    lengths = {len(one.get("embedding") or ()) for one in data}
    require(len(lengths) == 1 and lengths != {0}, f"the vectors' lengths are {lengths}", answer.trace)
    return f"{lengths.pop()} numbers"


@clause("endpoints.stop", "A stop sequence ends the answer and is not part of it", source=OPENAI)
async def stop(probe: Probe) -> str:
    """A word is taken from the middle of what the model says anyway."""
    plain = _content((await probe.chat(max_tokens=24)).json())
    words = [word for word in plain.split() if len(word) > 2 and plain.count(word) == 1]
    if len(words) < 2:
        unobservable(f"the model says too little: {plain[:60]!r}")
    word = words[len(words) // 2]
    answer = await probe.chat(max_tokens=24, stop=[word])
    text, why = _content(answer.json()), answer.json()["choices"][0].get("finish_reason")
    require(word not in text, f"the answer holds {word!r}", answer.trace)
    require(why == "stop", f"finish_reason is {why!r}", answer.trace)
    return f"stopped at {word!r}"


@clause(
    "endpoints.logprobs",
    "logprobs give each token its log probability, and as many as asked for beside it",
    source=OPENAI,
)
async def logprobs(probe: Probe) -> None:
    """Log probabilities are never above 0."""
    body = probe.asking(max_tokens=4, logprobs=True, top_logprobs=2)
    answer = await probe.offered(CHAT, body, "logprobs")
    told = (answer.json()["choices"][0].get("logprobs") or {}).get("content")
    if told is None:
        raise Unsupported("logprobs are taken and not given", answer.trace)
    require(told, "no token has one", answer.trace)
    for one in told:
        require(isinstance(one.get("token"), str), "an entry has no token", answer.trace)
        require(float(one.get("logprob", 1)) <= 1e-6, f"a logprob is {one.get('logprob')}", answer.trace)
        require(len(one.get("top_logprobs") or ()) == 2, "top_logprobs are not two", answer.trace)


@clause(
    "endpoints.json-mode", "response_format json_object gives JSON, unless the answer was cut", source=OPENAI
)
async def json_mode(probe: Probe) -> None:
    """Where it is offered."""
    body = probe.asking(
        "Answer in JSON: what color is the sky?", max_tokens=200, response_format={"type": "json_object"}
    )
    answer = await probe.offered(CHAT, body, "json_object")
    choice = answer.json()["choices"][0]
    if choice.get("finish_reason") == "length":
        unobservable("the answer was cut by max_tokens")
    try:
        found = msgspec.json.decode(choice["message"].get("content") or "")
    except msgspec.DecodeError as error:
        require(condition=False, detail=f"the answer is not JSON: {error}", trace=answer.trace)
    else:
        require(isinstance(found, dict), "the answer is not a JSON object", answer.trace)


@clause(
    "endpoints.tools",
    "A tool call has an id, a type, a name that was offered, and arguments in JSON",
    source=OPENAI,
)
async def tools(probe: Probe) -> str:
    """Where tools are offered and the model calls one."""
    body = probe.asking(
        "What color is the sky in Paris? Use the tool.", max_tokens=128, tools=[TOOL], tool_choice="required"
    )
    answer = await probe.offered(CHAT, body, "tools")
    choice = answer.json()["choices"][0]
    calls: list[dict[str, Any]] = (choice.get("message") or {}).get("tool_calls") or []
    if choice.get("finish_reason") == "length":
        unobservable("the answer was cut by max_tokens")
    require(calls, "tool_choice is required, and no tool was called", answer.trace)
    for call in calls:
        function = call.get("function") or {}
        require(call.get("id") and call.get("type") == "function", "a call has no id or type", answer.trace)
        require(function.get("name") == "sky_color", f"it calls {function.get('name')!r}", answer.trace)
        try:
            msgspec.json.decode(function.get("arguments") or "", type=dict)
        except msgspec.DecodeError as error:
            require(condition=False, detail=f"arguments are not a JSON object: {error}", trace=answer.trace)
    return f"{len(calls)} calls"


def _content(answer: dict[str, Any]) -> str:
    return str((answer["choices"][0].get("message") or {}).get("content") or "")
