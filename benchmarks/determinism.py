"""What changes the logits of a request, measured: its neighbours, a cached prefix, the batch size, a restart.

    .venv/bin/python benchmarks/determinism.py [--tokens N]

Every cell compares the logits from which each token of one greedy request was sampled with those of the same request
alone, cold, in a fresh process. Prints Markdown, for docs/runtime.md.
"""

import argparse
from typing import Any

import numpy as np

from skep.runtime.models import TINY, TINY_Q8
from skep.testkit.logits import Condition, Logits, in_a_process

SLOTS = 32
CONDITIONS: dict[str, dict[str, Any]] = {
    "alone, in another process": {},
    "31 neighbours": {"neighbours": 31},
    "cached prefix": {"warm": True},
    "cached prefix and 31 neighbours": {"neighbours": 31, "warm": True},
    "another batch size": {"batch_rows_max": 96},
    "another slot count": {"slots": 8},
}
MODES: dict[str, dict[str, Any]] = {
    "F16, deterministic": {"model": str(TINY), "deterministic": True},
    "Q8_0, deterministic": {"model": str(TINY_Q8), "deterministic": True},
    "F16, default": {"model": str(TINY)},
    "Q8_0, default": {"model": str(TINY_Q8)},
    "F16, default, unified cache": {"model": str(TINY), "unified_cache": True},
    "Q8_0, default, unified cache": {"model": str(TINY_Q8), "unified_cache": True},
}


def cell(reference: Logits, found: Logits) -> str:
    """Compare as long as both have said the same: what follows another token is another text's."""
    if np.array_equal(reference, found):
        return "same bits"
    apart = np.flatnonzero(reference.argmax(axis=1) != found.argmax(axis=1))
    rows = len(found) if not len(apart) else int(apart[0]) + 1
    largest = float(np.abs(reference[:rows] - found[:rows]).max())
    return f"by {largest:.2g}" + (f", other text from token {rows} on" if len(apart) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    tokens = parser.parse_args().tokens
    print("| | " + " | ".join(CONDITIONS) + " |")
    print("| --- |" + " --- |" * len(CONDITIONS))
    for name, mode in MODES.items():
        given = {"tokens": tokens, "slots": SLOTS, **mode}
        reference = in_a_process(Condition(**given))
        cells = [
            cell(reference, in_a_process(Condition(**given | changes))) for changes in CONDITIONS.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
