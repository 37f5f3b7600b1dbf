"""Prometheus registries, one a daemon, and the buckets that the field agreed on.

Nothing registers globally: two daemons in one process (`skep up`, tests) must not share series.
"""

from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

CONTENT_TYPE: Final = b"text/plain; version=1.0.0; charset=utf-8"

# OpenTelemetry semantic conventions for generative AI, histogram advice.
DURATION_S_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
FIRST_TOKEN_S_BUCKETS: Final = (
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
PER_TOKEN_S_BUCKETS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


def new_registry() -> CollectorRegistry:
    """Return an empty registry; series carry no `_created` twin."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry(auto_describe=True)


def render(registry: CollectorRegistry) -> bytes:
    """Return the registry in Prometheus' text format."""
    return generate_latest(registry)
