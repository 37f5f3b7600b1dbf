"""Kubernetes quantities ("500m", "1.5Gi", "2e3", "1E") as exact integers. No other file knows the suffixes.

The grammar and the canonical form are those of `k8s.io/apimachinery/pkg/api/resource`: decimal suffixes
n u m "" k M G T P E, binary suffixes Ki … Ei, or a decimal exponent. Integers are rounded up, as `Value()` and
`MilliValue()` do.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from skep.errors.arena import InvalidQuantity

DECIMAL: Final = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
BINARY: Final = {
    name: Fraction(1024**power) for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)
}
SUFFIXES: Final = DECIMAL | BINARY
VALUE_MAX: Final = 2**63 - 1
"""The largest value that Kubernetes itself holds; beyond it a quantity is taken for a mistake."""

_GRAMMAR: Final = re.compile(
    r"\+?(?P<number>\d+\.?\d*|\.\d+)(?:[eE](?P<exponent>[+-]?\d{1,3})|(?P<suffix>[numkMGTPE]|[KMGTPE]i)?)",
    re.ASCII,
)
_TEXT_CHARS_MAX: Final = 64

Quantity = str | int | float


@lru_cache(maxsize=16_384)
def _parse_text(text: str) -> Fraction:
    found = _GRAMMAR.fullmatch(text.strip()) if len(text) <= _TEXT_CHARS_MAX else None
    if found is None:
        raise InvalidQuantity(
            f"{text[:_TEXT_CHARS_MAX]!r} is not a Kubernetes quantity that is 0 or more: write it as 500m, 1.5 or 2Gi",
            value=text[:_TEXT_CHARS_MAX],
        )
    scale = Fraction(10) ** int(found["exponent"]) if found["exponent"] else SUFFIXES[found["suffix"] or ""]
    value = Fraction(found["number"].rstrip(".")) * scale
    if value > VALUE_MAX:
        raise InvalidQuantity(f"the quantity {text!r} is beyond what Kubernetes holds (2^63-1)", value=text)
    return value


def parse(quantity: Quantity) -> Fraction:
    """Return the exact value, in cores, bytes or counts.

    Raises: InvalidQuantity (no quantity, negative, beyond 2^63-1).
    """
    if type(quantity) is str:
        return _parse_text(quantity)
    if isinstance(quantity, bool) or not isinstance(quantity, int | float):
        raise InvalidQuantity(f"{quantity!r} is not a quantity: a string or a number is", value=quantity)
    return _parse_text(repr(quantity))


@lru_cache(maxsize=16_384)
def _milli_text(text: str) -> int:
    return -((-_parse_text(text) * 1000) // 1)


@lru_cache(maxsize=16_384)
def _whole_text(text: str) -> int:
    return -(-_parse_text(text) // 1)


def milli(quantity: Quantity) -> int:
    """Return thousandths, rounded up: "0.5" → 500. Raises: InvalidQuantity."""
    return _milli_text(quantity) if type(quantity) is str else int(-((-parse(quantity) * 1000) // 1))


def whole(quantity: Quantity) -> int:
    """Return units, rounded up: "1Ki" → 1024, "100m" → 1. Raises: InvalidQuantity."""
    return _whole_text(quantity) if type(quantity) is str else int(-(-parse(quantity) // 1))


def amount(resource: str, quantity: Quantity) -> int:
    """Return a resource's amount in this project's unit: millicores for `cpu`, else bytes or counts."""
    return milli(quantity) if resource == "cpu" else whole(quantity)


def format_milli(value: int) -> str:
    """Return millicores in canonical form: 2000 → "2", 500 → "500m"."""
    return str(value // 1000) if value % 1000 == 0 else f"{value}m"


def format_bytes(value: int) -> str:
    """Return bytes with the largest binary suffix that is exact: 268435456 → "256Mi"; else as a number."""
    best = ""
    for name, scale in BINARY.items():
        if value % scale:
            break
        best = name
    return f"{value // int(BINARY[best])}{best}" if best and value else str(value)


def format_amount(resource: str, value: int) -> str:
    """Return `amount()` as Kubernetes writes it."""
    if resource == "cpu":
        return format_milli(value)
    if resource in {"memory", "ephemeral-storage"} or resource.startswith("hugepages-"):
        return format_bytes(value)
    return str(value)
