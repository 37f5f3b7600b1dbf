"""The grammar of a stream: role, deltas, one finish, optional usage, one end."""

from typing import Any

import msgspec

from skep.testkit.check.clause import OPENAI, WHATWG, clause
from skep.testkit.check.probe import CHAT, Probe
from skep.testkit.check.transcript import DONE, Transcript
from skep.testkit.check.verdict import Broken, Unsupported, require, unobservable

IDENTITY = ("id", "model", "object", "created")
UNICODE_PROMPT = "Repeat exactly: naïve façade – 空は青い 🐝🐝"
USAGE = {"include_usage": True}


@clause("stream.content-type", "A stream is text/event-stream", source=WHATWG)
async def content_type(probe: Probe) -> None:
    """A browser's EventSource refuses anything else."""
    found = await probe.sample()
    told = found.content_type.partition(";")[0].strip().lower()
    require(told == "text/event-stream", f"the content type is {found.content_type!r}", found.excerpt())


@clause("stream.well-formed", "Every event is UTF-8, of known fields, and whole", source=WHATWG)
async def well_formed(probe: Probe) -> None:
    """What lenient clients drop in silence is a fault of the server."""
    found = await probe.sample()
    if violation := found.strict_violation():
        raise Broken(violation, found.tail())


@clause("stream.role-first", "The first delta of a choice names its role, later ones do not", source=OPENAI)
async def role_first(probe: Probe) -> None:
    """Clients make the message from it."""
    found = await probe.sample()
    roles = [delta.get("role") for _, _, delta in found.pieces]
    require(roles, "the stream holds no choice", found.tail())
    require(roles[0] == "assistant", f"the first delta's role is {roles[0]!r}", found.excerpt(_first(found)))
    repeated = [role for role in roles[1:] if role not in (None, "assistant")]
    require(not repeated, f"a later delta's role is {repeated[:1]}", found.tail())


@clause(
    "stream.one-finish", "Each choice gets exactly one finish_reason, and no text after it", source=OPENAI
)
async def one_finish(probe: Probe) -> None:
    """None is a cut stream, two are two ends."""
    found = await probe.sample()
    for index, count in found.finishes.items():
        require(count == 1, f"choice {index} has {count} finish reasons", found.tail())
    ended: set[int] = set()
    for index, choice, delta in found.pieces:
        require(
            index not in ended or not (delta.get("content") or choice.get("text")),
            f"choice {index} goes on after its finish_reason",
            found.tail(),
        )
        if choice.get("finish_reason"):
            ended.add(index)
    require(ended, "no choice is ever finished", found.tail())


@clause("stream.one-done", "A stream ends in exactly one [DONE]", source=OPENAI)
async def one_done(probe: Probe) -> None:
    """By it a client knows an end from a cut."""
    found = await probe.sample()
    require(found.done == 1, f"[DONE] comes {found.done} times", found.tail())


@clause("stream.silence-after-done", "Nothing comes after [DONE]", source=OPENAI)
async def silence_after_done(probe: Probe) -> None:
    """Whoever stops reading there would miss it."""
    found = await probe.sample()
    ends = [number for number, event in enumerate(found.events) if event.data == DONE]
    if not ends:
        unobservable("the stream has no [DONE]")
    after = len(found.events) - 1 - ends[0]
    require(not after, f"{after} events come after [DONE]", found.tail())


@clause("stream.one-identity", "id, model, object and created stay the same in every chunk", source=OPENAI)
async def one_identity(probe: Probe) -> None:
    """They name one completion."""
    found = await probe.sample()
    for name in IDENTITY:
        values = list(dict.fromkeys(str(chunk.get(name)) for chunk in found.chunks))
        require(
            len(values) == 1 and values != ["None"],
            f"{name} is {' and then '.join(values[:2])}",
            found.tail(),
        )
    kind = found.chunks[0]["object"]
    require(kind == "chat.completion.chunk", f"object is {kind!r}", found.excerpt(_first(found)))


@clause(
    "stream.characters-whole",
    "No character is split over two chunks",
    source="RFC 3629; OpenAI API reference",
)
async def characters_whole(probe: Probe) -> str:
    """A detokenizer that emits half a character shows as U+FFFD."""
    found = await probe.stream(probe.asking(UNICODE_PROMPT, max_tokens=64))
    text = found.text()
    require("\ufffd" not in text, "the text holds U+FFFD", found.tail())
    require(not found.strict_violation(), found.strict_violation(), found.tail())
    if text.isascii():
        unobservable(f"the model answered in ASCII: {text[:60]!r}")
    return f"{sum(not one.isascii() for one in text)} characters beyond ASCII"


@clause("stream.same-as-whole", "A stream adds up to the answer that is not streamed", source=OPENAI)
async def same_as_whole(probe: Probe) -> None:
    """The same greedy request, twice whole and once streamed."""
    first, second = [_content(await probe.chat()) for _ in range(2)]
    if first != second:
        unobservable("the server does not answer the same greedy request alike")
    found = await probe.sample()
    require(
        found.text() == first,
        f"streamed {found.text()[:80]!r}, whole {first[:80]!r}",
        found.excerpt(*(f"data: {one.data}" for one in found.events[:4])),
    )


@clause("stream.usage-last", "include_usage adds one last chunk with usage and no choices", source=OPENAI)
async def usage_last(probe: Probe) -> None:
    """It comes before [DONE], and the others carry none or null."""
    found = await _with_usage(probe)
    told = [number for number, chunk in enumerate(found.chunks) if chunk.get("usage")]
    if not told:
        raise Unsupported("no chunk carries usage", found.tail())
    require(
        told == [len(found.chunks) - 1], f"chunks {told} of {len(found.chunks)} carry usage", found.tail()
    )
    require(not found.chunks[-1].get("choices"), "the chunk with usage has choices", found.tail())


@clause(
    "stream.usage-counts",
    "The stream's usage is that of the whole answer, and its sum is right",
    source=OPENAI,
)
async def usage_counts(probe: Probe) -> str:
    """People are billed by it."""
    found = await _with_usage(probe)
    told = [chunk["usage"] for chunk in found.chunks if chunk.get("usage")]
    if not told:
        raise Unsupported("no chunk carries usage", found.tail())
    streamed, whole = _counts(told[-1]), _counts((await probe.chat()).json().get("usage") or {})
    require(
        streamed[0] + streamed[1] == streamed[2], f"prompt, completion and total are {streamed}", found.tail()
    )
    require(
        streamed == whole, f"streamed {streamed}, whole {whole} (prompt, completion, total)", found.tail()
    )
    return f"{streamed[0]} + {streamed[1]} tokens"


@clause("stream.choices", "With n = 2 each of two choices has its own index and one finish", source=OPENAI)
async def choices(probe: Probe) -> None:
    """Or the server says that it offers one only."""
    body = probe.asking(n=2, temperature=1, seed=7)
    async with probe.streaming(body) as (found, reading):
        async for _ in reading:
            pass
    if found.status in {400, 422}:
        raise Unsupported(f"n = 2 is answered with {found.status}")
    require(found.status == 200, f"n = 2 is answered with {found.status}", found.excerpt())
    require(sorted(found.finishes) == [0, 1], f"the choices are {sorted(found.finishes)}", found.tail())
    require(set(found.finishes.values()) == {1}, f"finish reasons: {dict(found.finishes)}", found.tail())


async def _with_usage(probe: Probe) -> Transcript:
    body = probe.asking(stream_options=USAGE)
    found: Transcript = await probe.once("with usage", lambda: probe.stream(body, path=CHAT))
    return found


def _content(answer: Any) -> str:
    message = answer.json()["choices"][0].get("message") or {}
    return str(message.get("content") or message.get("reasoning_content") or "")


def _counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    return (
        int(usage.get("prompt_tokens", -1)),
        int(usage.get("completion_tokens", -1)),
        int(usage.get("total_tokens", -1)),
    )


def _first(found: Transcript) -> str:
    return f"data: {msgspec.json.encode(found.chunks[0]).decode()}"
