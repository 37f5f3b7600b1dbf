"""A small seeded generator whose whole state is one integer, so that snapshots and forks are cheap.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
"""

from typing import Final

_MASK: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15


class Rng:
    """Draws that depend on the state alone."""

    __slots__ = ("state",)

    def __init__(self, state: int) -> None:
        self.state = state & _MASK

    def next(self) -> int:
        """Return 64 random bits."""
        self.state = z = (self.state + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """Return an integer from 0 to `bound` - 1; the bias is below 2⁻³² for the bounds used here."""
        return (self.next() * bound) >> 64

    def jitter(self, span: int) -> int:
        """Return an integer from 0 to `span`."""
        return (self.next() * (span + 1)) >> 64 if span else 0
