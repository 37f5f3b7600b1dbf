"""A cut stream can never be taken for a finished one."""

from skep.testkit.check.clause import HTTP, OPENAI, clause
from skep.testkit.check.probe import LONG_PROMPT, Probe
from skep.testkit.check.transcript import Transcript
from skep.testkit.check.verdict import Severity, require
from skep.wire.sse import parse_all


@clause("truncation.no-prefix", "No prefix of a stream's bytes looks like a success", source=OPENAI)
async def no_prefix(probe: Probe) -> str:
    """Every prefix is tried, as a client would read it."""
    found = await probe.sample()
    require(found.is_whole, "the whole stream itself does not look like a success", found.tail())
    for cut in range(len(found.raw)):
        prefix = Transcript(request=found.request, status=200, content_type="", headers={})
        prefix.events = parse_all([bytes(found.raw[:cut])])
        if not prefix.done:
            continue
        rest = bytes(found.raw[cut:]).strip()
        require(
            not prefix.is_whole or not rest,
            f"the first {cut} of {len(found.raw)} bytes look like a success",
            prefix.tail(),
        )
    return f"{len(found.raw)} prefixes"


@clause(
    "truncation.framed",
    "A stream's body is chunked or has a length, so that HTTP shows a cut as well",
    source=f"{HTTP[:3]} 9112, 6.3",
    severity=Severity.SHOULD,
)
async def framed(probe: Probe) -> None:
    """A body that only the connection's end ends cannot be told from a cut."""
    found = await probe.sample()
    is_framed = (
        "chunked" in found.headers.get("transfer-encoding", "").lower() or "content-length" in found.headers
    )
    require(is_framed, "neither chunked nor of a stated length", found.excerpt(str(found.headers)))


@clause("truncation.length-is-told", "An answer that max_tokens cut says finish_reason length", source=OPENAI)
async def length_is_told(probe: Probe) -> None:
    """Streamed and whole; a client must know that there would be more."""
    body = probe.asking(LONG_PROMPT, max_tokens=3)
    found = await probe.stream(body)
    told = [choice["finish_reason"] for _, choice, _ in found.pieces if choice.get("finish_reason")]
    answer = await probe.chat(LONG_PROMPT, max_tokens=3)
    whole = answer.json()["choices"][0].get("finish_reason")
    counted = (answer.json().get("usage") or {}).get("completion_tokens")
    if counted is not None and counted < 3 and whole == "stop":
        return
    require(told == ["length"], f"the stream says {told}", found.tail())
    require(whole == "length", f"the whole answer says {whole!r}", answer.trace)
    require(counted in (None, 3), f"it was {counted} tokens for max_tokens 3", answer.trace)
