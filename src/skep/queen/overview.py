"""Everything at a glance: what the dashboard and `skep top` show."""

import msgspec

from skep import __version__
from skep.queen.core import Core
from skep.queen.rates import RatesView
from skep.queen.records import QUEENS, QueenRecord
from skep.queen.views import ModelView, NodeView, PoolView, model_views, node_view, pool_views


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment, as this queen knows it."""

    version: str
    queen_id: str
    status: str
    leader: bool
    queens: int
    store: str
    gateway_url: str
    running: int
    waiting: int
    retries: int
    ejections: int
    rates: RatesView
    nodes: tuple[NodeView, ...]
    pools: tuple[PoolView, ...]
    models: tuple[ModelView, ...]


def overview(core: Core) -> Overview:
    """Return the fleet as it is now."""
    waiting = core.waiting()
    nodes = core.registry.nodes
    facts = core.health_facts()
    return Overview(
        version=__version__,
        queen_id=core.instance,
        status=core.status(),
        leader=bool(facts.get("leader", True)),
        queens=len(core.state.records(QUEENS, QueenRecord)) if core.state else 1,
        store=str(facts.get("store", "none")),
        gateway_url=core.gateway_url,
        running=len(core.service.running),
        waiting=core.dispatcher.waiting,
        retries=core.dispatcher.retries,
        ejections=core.dispatcher.ejections,
        rates=core.rates.view(),
        nodes=tuple(node_view(core.registry, nodes[node_id]) for node_id in sorted(nodes)),
        pools=tuple(pool_views(core.registry, now_s=core.now_s(), waiting=waiting)),
        models=tuple(model_views(core.routes, waiting)),
    )
