"""Verdicts and raw scores that depend on nodes alone, not on their pods; shared by all classes that ask the same.

Filters NodeUnschedulable, NodeName, TaintToleration, NodeAffinity; raw scores of TaintToleration, NodeAffinity,
ImageLocality.
"""

from typing import Any, Final

import numpy as np

from skep.arena.objects import PodTemplate, Taint
from skep.arena.scheduler.matching import (
    is_tolerated,
    node_matches,
    preferred_untolerated,
    term_holds,
    untolerated,
)
from skep.arena.scheduler.plugins import (
    AFFINITY_CODE,
    DETAIL_SHIFT,
    NODE_NAME_CODE,
    SCORE_MAX,
    TAINT_CODE,
    UNSCHEDULABLE_CODE,
)
from skep.arena.scheduler.table import NodeTable
from skep.arena.state import NodeState

UNSCHEDULABLE_TAINT: Final = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
MEBIBYTE: Final = 1024 * 1024
IMAGE_BYTES_MIN: Final = 23 * MEBIBYTE
IMAGE_BYTES_MAX: Final = 1000 * MEBIBYTE
"""Below and above, an image's size counts for nothing and for no more (plugins/imagelocality)."""


class Statics:
    """Per slot: verdict codes, and raw scores where any node has one (else None)."""

    __slots__ = ("_table", "_template", "_where", "codes", "images", "preferred", "reasons", "taints")

    def __init__(self, table: NodeTable, template: PodTemplate) -> None:
        self._table, self._template = table, template
        self.reasons: list[str] = []
        self._where: dict[str, int] = {}
        self.codes: Any = None
        self.taints: Any = None
        self.preferred: Any = None
        self.images: Any = None
        self._fill()

    def _array(self, values: list[int]) -> Any:
        return np.array(values, dtype=np.int64) if self._table.vector else values

    def _fill(self) -> None:
        nodes, template = self._table.nodes, self._template
        self.codes = self._array([self._code(node) for node in nodes])
        tainted = [
            preferred_untolerated(template.tolerations, node.taints) if node.taints else 0 for node in nodes
        ]
        self.taints = self._array(tainted) if any(tainted) else None
        self.preferred = (
            self._array([_preference(template, node) for node in nodes]) if template.node_preferred else None
        )
        self._fill_images()

    def _fill_images(self) -> None:
        nodes, wanted = self._table.nodes, [_normal(image) for image in self._template.images]
        holders = {image: sum(image in node.images for node in nodes) for image in wanted}
        if not any(holders.values()):
            self.images = None
            return
        scores = [_locality(node, wanted, holders, len(nodes)) for node in nodes]
        self.images = self._array(scores) if any(scores) else None

    def _code(self, node: NodeState) -> int:
        template = self._template
        if node.cordoned and not is_tolerated(template.tolerations, UNSCHEDULABLE_TAINT):
            return UNSCHEDULABLE_CODE
        if template.node_name and template.node_name != node.spec.name:
            return NODE_NAME_CODE
        taint = untolerated(template.tolerations, node.taints) if node.taints else None
        if taint is not None:
            shown = f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
            return TAINT_CODE | self._reason(shown) << DETAIL_SHIFT
        if not node_matches(template, node.spec.name, node.spec.labels):
            return AFFINITY_CODE
        return 0

    def _reason(self, text: str) -> int:
        at = self._where.get(text)
        if at is None:
            at = self._where[text] = len(self.reasons)
            self.reasons.append(text)
        return at

    def update(self, slot: int) -> None:
        """Read one node anew."""
        node, template = self._table.nodes[slot], self._template
        self.codes[slot] = self._code(node)
        tainted = preferred_untolerated(template.tolerations, node.taints)
        if self.taints is not None:
            self.taints[slot] = tainted
        elif tainted:
            self.taints = self._array([0] * len(self._table))
            self.taints[slot] = tainted
        self._fill_images()


def _preference(template: PodTemplate, node: NodeState) -> int:
    return sum(
        item.weight
        for item in template.node_preferred
        if not (item.term.expressions or item.term.fields)
        or term_holds(item.term, node.spec.name, node.spec.labels)
    )


def _normal(image: str) -> str:
    return image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"


def _locality(node: NodeState, wanted: list[str], holders: dict[str, int], nodes: int) -> int:
    total = sum(
        int(node.images[image] * (holders[image] / nodes)) for image in wanted if image in node.images
    )
    highest = IMAGE_BYTES_MAX * len(wanted)
    total = min(max(total, IMAGE_BYTES_MIN), highest)
    return SCORE_MAX * (total - IMAGE_BYTES_MIN) // (highest - IMAGE_BYTES_MIN)
