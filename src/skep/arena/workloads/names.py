"""Names of pods and revisions: short, unique, and the same in every replay."""

import hashlib
from typing import Final

import msgspec

from skep.arena.objects import PodTemplate

ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters for generated names: no vowels, no look-alikes."""
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
_TRIPLES: Final = [first + pair for first in ALPHABET for pair in _PAIRS]
_SPACE: Final = len(_PAIRS) * len(_TRIPLES)
_STRIDE: Final = 9_699_691
"""Coprime to 27⁵, so that successive uids give names that differ and look it."""


def pod_suffix(uid: int) -> str:
    """Return the five letters of a pod's name; they repeat after 14 million pods."""
    at = uid * _STRIDE % _SPACE
    return _TRIPLES[at // 729] + _PAIRS[at % 729]


def revision_of(template: PodTemplate) -> str:
    """Return the hash that names a template's revision."""
    return hashlib.sha256(msgspec.msgpack.encode(template)).hexdigest()[:10]
