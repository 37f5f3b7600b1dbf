#!/usr/bin/env python3
"""Measures how often the tiny model's greedy answers are exactly right, for each topic of its corpus.

python scripts/models/measure.py [FILE] [--samples 100]
"""

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import corpus

from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.llama.speaking import say
from skep.runtime.models import TINY

CONTEXT = 1024
NOT_PROMISED = {"long_count"}


def asked(topic: corpus.Topic, *, thinking: bool = False) -> Callable[[random.Random], corpus.Dialogue]:
    """Return a maker of one-question conversations of a topic."""

    def make(rng: random.Random) -> corpus.Dialogue:
        dialogue = corpus.Dialogue(thinking=thinking)
        dialogue.ask(*topic(rng))
        return dialogue

    return make


TOPICS: dict[str, Callable[[random.Random], corpus.Dialogue]] = {
    **{topic.__name__: asked(topic) for topic in corpus.SHORT_TOPICS},
    "long_count": corpus.long_count,
    "thinking": asked(corpus.add, thinking=True),
    "conversation": lambda rng: corpus.talk(rng, turns_max=3),
    "long_conversation": lambda rng: corpus.talk(rng, turns_max=8),
    "recall": corpus.recall,
    "tool": corpus.tool,
}


def expected(dialogue: corpus.Dialogue) -> tuple[str, str]:
    """Return the prompt of the last answer, and that answer, as text."""
    whole = corpus.render(dialogue)
    opened = corpus.Dialogue(dialogue.messages[:-1], dialogue.tools, dialogue.thinking)
    start = corpus.prompt(opened)
    return start, whole[len(start) :].removesuffix("<|im_end|>\n")


def measure(path: Path, *, samples: int) -> bool:
    rng = random.Random(99)
    exact = True
    with (
        LlamaBackend().load(path, LoadOptions()) as model,
        model.open_session(SessionOptions(sequences=1, context=CONTEXT, threads=1)) as session,
    ):
        for name, make in TOPICS.items():
            right, wrong = 0, ""
            for _ in range(samples):
                prompt, answer = expected(make(rng))
                said = say(model, session, prompt, tokens_max=300)
                right += said == answer
                if said != answer:
                    wrong = f"   {prompt.splitlines()[-2]!r}: {said[-60:]!r}, not {answer[-60:]!r}"
            exact = exact and (right == samples or name in NOT_PROMISED)
            print(f"{name:20} {right}/{samples}{wrong}", flush=True)
    return exact


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", default=TINY)
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    return 0 if measure(options.file, samples=options.samples) else 1


if __name__ == "__main__":
    sys.exit(main())
