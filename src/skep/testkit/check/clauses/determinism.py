"""The same request, the same words: by greedy choice, by seed, beside others, after others."""

import asyncio

from skep.testkit.check.clause import OPENAI, clause
from skep.testkit.check.probe import LONG_PROMPT, PROMPT, Probe
from skep.testkit.check.verdict import Broken, Severity, require

REPEATS = 3
NEIGHBOURS = 4


async def _text(probe: Probe, prompt: str, **fields: object) -> str:
    answer = await probe.chat(prompt, **{"max_tokens": 32, **fields})
    return str(answer.json()["choices"][0]["message"].get("content") or "")


def _same(texts: list[str], what: str) -> None:
    for text in texts[1:]:
        if text != texts[0]:
            at = next(
                (number for number, (a, b) in enumerate(zip(texts[0], text, strict=False)) if a != b),
                min(len(texts[0]), len(text)),
            )
            raise Broken(
                f"{what} diverge at character {at}",
                f"< …{texts[0][max(at - 20, 0) : at + 20]!r}\n< …{text[max(at - 20, 0) : at + 20]!r}",
            )


@clause("determinism.greedy", "At temperature 0 one request has one answer", source=OPENAI)
async def greedy(probe: Probe) -> None:
    """One after the other, on an otherwise idle server."""
    _same([await _text(probe, PROMPT) for _ in range(REPEATS)], "greedy answers")


@clause("determinism.seed", "One seed gives one answer", source=OPENAI, severity=Severity.SHOULD)
async def seed(probe: Probe) -> None:
    """At temperature 1."""
    _same(
        [await _text(probe, PROMPT, temperature=1, seed=7) for _ in range(REPEATS)], "answers with one seed"
    )


@clause(
    "determinism.seeds-differ",
    "Sampling without a seed is not the same every time",
    source=OPENAI,
    severity=Severity.SHOULD,
)
async def seeds_differ(probe: Probe) -> None:
    """A fixed seed that nobody asked for."""
    texts = [await _text(probe, LONG_PROMPT, temperature=1.5, max_tokens=24) for _ in range(REPEATS * 2)]
    require(len(set(texts)) > 1, f"{len(texts)} samples at temperature 1.5 are all {texts[0][:60]!r}")


@clause("determinism.cache", "What was asked before does not change a greedy answer", source=OPENAI)
async def cache(probe: Probe) -> None:
    """Another conversation, and one that begins alike, in between."""
    texts = [await _text(probe, PROMPT)]
    for other in ("Tell me about bees.", f"{PROMPT} And the sea?", PROMPT[:-5]):
        await _text(probe, other)
        texts.append(await _text(probe, PROMPT))
    _same(texts, "answers before and after others")


@clause(
    "determinism.batch",
    "Neighbours in a batch do not change a greedy answer",
    source=OPENAI,
    severity=Severity.SHOULD,
)
async def batch(probe: Probe) -> None:
    """Alone, then four at once beside others."""
    alone = await _text(probe, PROMPT)
    others = [_text(probe, f"{LONG_PROMPT} {number}") for number in range(NEIGHBOURS)]
    found = await asyncio.gather(*(_text(probe, PROMPT) for _ in range(NEIGHBOURS)), *others)
    _same([alone, *found[:NEIGHBOURS]], "answers alone and in a batch")
