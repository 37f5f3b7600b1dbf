"""The default profile's plugins: their order, weights, and how a filter's verdict packs into one integer.

A verdict code is 0 (passes), or plugin | UNRESOLVABLE? | detail << DETAIL_SHIFT. The detail is a mask of resource
columns for NodeResourcesFit, an index into the class's reasons for the static filters, and a small number else.
"""

from enum import IntEnum
from typing import Final


class Filter(IntEnum):
    """Filter plugins, in the order in which the default profile runs them; the first that fails is the verdict."""

    NODE_UNSCHEDULABLE = 1
    NODE_NAME = 2
    TAINT_TOLERATION = 3
    NODE_AFFINITY = 4
    NODE_PORTS = 5
    NODE_RESOURCES_FIT = 6
    POD_TOPOLOGY_SPREAD = 7
    INTER_POD_AFFINITY = 8


NAMES: Final = {
    Filter.NODE_UNSCHEDULABLE: "NodeUnschedulable",
    Filter.NODE_NAME: "NodeName",
    Filter.TAINT_TOLERATION: "TaintToleration",
    Filter.NODE_AFFINITY: "NodeAffinity",
    Filter.NODE_PORTS: "NodePorts",
    Filter.NODE_RESOURCES_FIT: "NodeResourcesFit",
    Filter.POD_TOPOLOGY_SPREAD: "PodTopologySpread",
    Filter.INTER_POD_AFFINITY: "InterPodAffinity",
}

PLUGIN_MASK: Final = 0x3F
UNRESOLVABLE: Final = 0x40
"""Set when removing pods cannot help (`UnschedulableAndUnresolvable`): preemption does not try such a node."""
DETAIL_SHIFT: Final = 8

UNSCHEDULABLE_CODE: Final = Filter.NODE_UNSCHEDULABLE | UNRESOLVABLE
NODE_NAME_CODE: Final = Filter.NODE_NAME | UNRESOLVABLE
TAINT_CODE: Final = Filter.TAINT_TOLERATION | UNRESOLVABLE
AFFINITY_CODE: Final = Filter.NODE_AFFINITY | UNRESOLVABLE
PORTS_CODE: Final = int(Filter.NODE_PORTS)
FIT_CODE: Final = int(Filter.NODE_RESOURCES_FIT)
SPREAD_CODE: Final = int(Filter.POD_TOPOLOGY_SPREAD)
SPREAD_MISSING_CODE: Final = Filter.POD_TOPOLOGY_SPREAD | UNRESOLVABLE | 1 << DETAIL_SHIFT
POD_AFFINITY_CODE: Final = Filter.INTER_POD_AFFINITY | UNRESOLVABLE | 1 << DETAIL_SHIFT
POD_ANTI_CODE: Final = Filter.INTER_POD_AFFINITY | 2 << DETAIL_SHIFT
EXISTING_ANTI_CODE: Final = Filter.INTER_POD_AFFINITY | 3 << DETAIL_SHIFT

FIXED_REASONS: Final = {
    UNSCHEDULABLE_CODE: "node(s) were unschedulable",
    NODE_NAME_CODE: "node(s) didn't match the requested node name",
    AFFINITY_CODE: "node(s) didn't match Pod's node affinity/selector",
    PORTS_CODE: "node(s) didn't have free ports for the requested pod ports",
    SPREAD_CODE: "node(s) didn't match pod topology spread constraints",
    SPREAD_MISSING_CODE: "node(s) didn't match pod topology spread constraints (missing required label)",
    POD_AFFINITY_CODE: "node(s) didn't match pod affinity rules",
    POD_ANTI_CODE: "node(s) didn't match pod anti-affinity rules",
    EXISTING_ANTI_CODE: "node(s) didn't satisfy existing pods anti-affinity rules",
}

WEIGHT_TAINT: Final = 3
WEIGHT_NODE_AFFINITY: Final = 2
WEIGHT_SPREAD: Final = 2
WEIGHT_POD_AFFINITY: Final = 2
SCORE_MAX: Final = 100

WEIGHTS: Final = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}
"""The default profile's score weights (pkg/scheduler/apis/config/v1/default_plugins.go)."""

NODES_ALWAYS_CHECKED: Final = 100
PERCENT_MIN: Final = 5


def nodes_to_find(nodes: int) -> int:
    """Return how many feasible nodes are enough (`numFeasibleNodesToFind`, adaptive percentage)."""
    if nodes < NODES_ALWAYS_CHECKED:
        return nodes
    percent = max(50 - nodes // 125, PERCENT_MIN)
    return max(nodes * percent // 100, NODES_ALWAYS_CHECKED)
