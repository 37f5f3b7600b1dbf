"""Hives and their queen."""

from typing import Any

from pytest_bdd import given, parsers, then, when

from skep.testkit.fleet.ask import ask
from skep.testkit.world import World

LISTED_S_MAX = 60.0


@given("a queen is running")
def queen_is_running(world: World) -> None:
    """Start a queen; a hive that starts after it registers with it."""
    lab = world.own()
    world.queen = lab.start_queen()
    lab.settings["queen"] = world.queen.report["admin"]


@given(parsers.parse('the hive of node "{node_id}" is running'))
def hive_of_node(world: World, node_id: str) -> None:
    """Start a hive under a name."""
    world.start_hive(node_id=node_id)


@when("the queen is killed")
def queen_killed(world: World) -> None:
    """SIGKILL the queen."""
    assert world.queen is not None
    world.queen.kill()


@when("a queen that knows nobody takes its place")
def new_queen(world: World) -> None:
    """Start a queen at the same addresses, with an empty store: what a hive tells it of is unknown to it."""
    assert world.queen is not None, "no queen was started"
    lab, before = world.own(), world.queen.report
    address = {name: before[name].partition("://")[2] for name in ("gateway", "admin")}
    world.queen = lab.start_queen(
        bind=address["gateway"], admin_bind=address["admin"], store=f"sqlite:{lab.folder / 'empty.db'}"
    )


@when(parsers.re(r'I (?P<verb>cordon|uncordon) node "(?P<node_id>[^"]+)"'))
def cordon(world: World, verb: str, node_id: str) -> None:
    """Tell the queen to give a node no new work, or to give it some again."""
    assert world.queen is not None, "no queen was started"
    world.last_response = ask(world.queen.url, f"/v2/nodes/{node_id}/{verb}", {}, method="POST")
    assert world.last_response.status == 200, world.last_response.text


@when("the hive stops")
def hive_stops(world: World) -> None:
    """End the hive as an operator does."""
    world.running_hive().stop()


@then(parsers.parse('the queen should list node "{node_id}" as "{state}"'))
def queen_lists(world: World, node_id: str, state: str) -> None:
    """Wait until the queen's list has the node in this state; a silent one is lost after half a minute."""
    found = world.lab.until(
        lambda: next(
            (each for each in _nodes(world) if each["node_id"] == node_id and each["state"] == state), None
        ),
        what=f"the queen lists {node_id} as {state}",
        within_s=LISTED_S_MAX,
    )
    assert found["node_id"] == node_id
    world.seen["node"] = found


@then(parsers.parse('the queen should not list node "{node_id}"'))
def queen_lists_not(world: World, node_id: str) -> None:
    """Wait until the queen's list has the node no more."""
    world.lab.until(
        lambda: node_id not in [each["node_id"] for each in _nodes(world)], what=f"{node_id} is not listed"
    )
    assert node_id not in [each["node_id"] for each in _nodes(world)]


@then(parsers.parse('the queen should know pool "{pool_id}" of node "{node_id}" as "{state}"'))
def queen_knows_pool(world: World, pool_id: str, node_id: str, state: str) -> None:
    """Wait until the queen has heard of a pool's state, without waiting for the next beat."""
    assert world.queen is not None, "no queen was started"
    admin = world.queen.url

    def told() -> Any:
        wanted = {"pool_id": pool_id, "node_id": node_id, "state": state}
        return next((each for each in ask(admin, "/v2/pools").body if wanted.items() <= each.items()), None)

    found = world.lab.until(told, what=f"the queen knows {pool_id} as {state}")
    assert found["state"] == state


@then("the queen should not show a worker's token")
def no_token(world: World) -> None:
    """Hold that neither the queen's answers nor the logs hold a worker's bearer token."""
    assert world.queen is not None
    tokens = [each["token"] for each in world.lab.handoffs().values()]
    assert tokens, "no worker was handed over"
    shown = (
        ask(world.queen.url, "/v2/nodes").text
        + world.queen.log.read_text()
        + world.running_hive().log.read_text()
    )
    assert not [token for token in tokens if token in shown]


@then(parsers.parse('pool "{pool_id}" should still be ready'))
def still_ready(world: World, pool_id: str) -> None:
    """Hold that a pool serves, with the very processes that it had when it became ready."""
    now = {each["replica_id"]: each["pid"] for each in world.until_ready(pool_id)["replicas"]}
    before = {name: each["pid"] for name, each in world.engines.items() if name in now}
    assert now == before
    assert set(now.values()) <= set(world.lab.worker_pids())


@then(parsers.parse("the hive should be {registered} with the queen"))
def hive_registered(world: World, registered: str) -> None:
    """Wait until the hive itself says so. `registered` is "registered" or "not registered"."""
    wanted = registered == "registered"
    found = world.lab.until(
        lambda: True if world.ask("/v2/state").body["registered"] is wanted else None,
        what=f"the hive is {registered}",
    )
    assert found


def _nodes(world: World) -> list[dict[str, Any]]:
    assert world.queen is not None, "no queen was started"
    body = ask(world.queen.url, "/v2/nodes").body
    found = body["nodes"] if isinstance(body, dict) else body
    return list(found)
