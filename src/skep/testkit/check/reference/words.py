"""The language model: it says words that follow from the prompt and the seed, and knows how to repeat."""

import hashlib
import random

from skep.testkit.check.reference.ask import Ask

WORDS = (
    "the", "sky", "is", "blue", "and", "wide", "while", "bees", "carry", "honey", "home", "at", "dusk", "over", "a", "small",
    "quiet", "garden", "wall",
)  # fmt: skip
TURN_WORDS = 12
REPEAT = "Repeat exactly: "
JSON = '{"color": "blue"}'


def tokens(ask: Ask, *, choice: int, salt: str, faults: frozenset[str]) -> tuple[list[str], str]:
    """Return the tokens of one choice, and why they end. Greedy is what the prompt says; else the seed has its say."""
    planned = _planned(ask, choice, salt, faults)
    said: list[str] = []
    for token in planned:
        if len(said) >= ask.max_tokens:
            return said, "length"
        said.append(token)
        text = "".join(said)
        for stop in () if "endpoints.stop" in faults else ask.stop:
            if stop in text:
                return _cut(said, text.index(stop)), "stop"
    return said, "length" if len(said) >= ask.max_tokens else "stop"


def _planned(ask: Ask, choice: int, salt: str, faults: frozenset[str]) -> list[str]:
    if ask.is_json:
        return list(JSON)
    if ask.prompt.startswith(REPEAT):
        return list(ask.prompt.removeprefix(REPEAT))
    sampled = "" if ask.temperature == 0 else f"{ask.seed} {choice}"
    if ask.temperature and ask.seed is None and "determinism.seeds-differ" not in faults:
        sampled += str(random.random())  # noqa: S311 - words, no secrets
    digest = hashlib.sha256(f"{ask.prompt}|{sampled}|{salt}".encode()).digest()
    draw = random.Random(digest)  # noqa: S311 - words, no secrets
    count = ask.max_tokens if ask.ignore_eos else TURN_WORDS
    order = draw.sample(WORDS, min(count, len(WORDS)))
    words = [order[number % len(order)] for number in range(count)]
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]


def _cut(said: list[str], length: int) -> list[str]:
    kept: list[str] = []
    for token in said:
        room = length - len("".join(kept))
        if room <= 0:
            break
        kept.append(token[:room])
    return kept
