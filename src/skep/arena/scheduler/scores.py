"""The final score of every feasible node: the weighted, normalised sum of the default profile's score plugins."""

from typing import Any

import numpy as np

from skep.arena.scheduler.filters import Verdicts
from skep.arena.scheduler.plugins import (
    SCORE_MAX,
    WEIGHT_NODE_AFFINITY,
    WEIGHT_POD_AFFINITY,
    WEIGHT_SPREAD,
    WEIGHT_TAINT,
)
from skep.arena.scheduler.pod_affinity import AffinityPlan
from skep.arena.scheduler.spread import SpreadPlan

Parts = dict[str, Any]
"""Normalised scores by plugin, for those that need the feasible set; the others are read from the verdicts."""


def normalised_parts(
    verdicts: Verdicts, spread: SpreadPlan | None, affinity: AffinityPlan | None, slots: Any
) -> Parts:
    """Return the scores that are normalised over the feasible nodes; a plugin that says nothing is left out."""
    statics, parts = verdicts.statics, {}
    if statics.taints is not None:
        parts["TaintToleration"] = _scaled(statics.taints, slots, is_reversed=True)
    if statics.preferred is not None:
        parts["NodeAffinity"] = _scaled(statics.preferred, slots, is_reversed=False)
    if spread is not None and spread.soft:
        parts["PodTopologySpread"] = spread.scores(slots)
    if affinity is not None and affinity.scored:
        parts["InterPodAffinity"] = affinity.scores(slots)
    return parts


def _scaled(raw: Any, slots: Any, *, is_reversed: bool) -> Any:
    """Scale to 0..100 by the largest raw score (`DefaultNormalizeScore`)."""
    if isinstance(raw, list):
        values = [raw[slot] for slot in slots]
        highest = max(values)
        if not highest:
            return [SCORE_MAX if is_reversed else 0] * len(values)
        scaled = [SCORE_MAX * value // highest for value in values]
        return [SCORE_MAX - value for value in scaled] if is_reversed else scaled
    values = raw[slots]
    highest = int(values.max())
    if not highest:
        return np.full(len(values), SCORE_MAX if is_reversed else 0)
    scaled = SCORE_MAX * values // highest
    return SCORE_MAX - scaled if is_reversed else scaled


WEIGHT_OF = {
    "TaintToleration": WEIGHT_TAINT,
    "NodeAffinity": WEIGHT_NODE_AFFINITY,
    "PodTopologySpread": WEIGHT_SPREAD,
    "InterPodAffinity": WEIGHT_POD_AFFINITY,
}


def total_scores(verdicts: Verdicts, parts: Parts, slots: Any) -> Any:
    """Return the weighted sum per slot. A constant that is the same for every node is left out."""
    base = verdicts.base
    if isinstance(base, list):
        totals = [base[slot] for slot in slots]
        for name, values in parts.items():
            weight = WEIGHT_OF[name]
            totals = [total + weight * value for total, value in zip(totals, values, strict=True)]
        return totals
    summed = base[slots]
    for name, values in parts.items():
        summed = summed + WEIGHT_OF[name] * values
    return summed
