"""Who leads, and what a leader does with pools: fenced writes, placement, moves."""

import asyncio
import contextlib
import time

import msgspec
import pytest
from aiohttp import web

from skep.errors.queen import NotLeader
from skep.queen.assign import Assigner
from skep.queen.forward import Forwarder
from skep.queen.keygate import KeyGate
from skep.queen.membership import Membership
from skep.queen.records import ASSIGNMENTS, LEADER, POOLS, Assignment, PoolRecord, QueenRecord
from skep.queen.registry import Registry
from skep.queen.state import State
from skep.spec.pool import PoolSpec
from skep.store.base import Delete, Put
from skep.store.sqlite import SqliteStore
from skep.web.client import make_client
from skep.wire.node import Capabilities, DeviceReport, Heartbeat, PoolReport, RegisterRequest


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def store(tmp_path):
    async with SqliteStore(tmp_path / "s.db", tick_s=0.02) as made:
        yield made


def record(name: str) -> QueenRecord:
    return QueenRecord(queen_id=name, admin_url=f"http://{name}", gateway_url="")


@contextlib.asynccontextmanager
async def running(*works):
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(check) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.01)


async def test_one_leads_and_when_it_leaves_the_other_does(store):
    one, other = Membership(store, record("one")), Membership(store, record("other"))
    async with running(one.run()):
        await until(lambda: one.is_leader)
        async with running(other.run()):
            assert await one.write([], [Put(key="a", value=b"1")])
            with pytest.raises(NotLeader):
                await other.write([], [Put(key="a", value=b"2")])
            await one.leave()
            await until(lambda: other.is_leader or one.is_leader)
    assert (await store.get("a")).value == b"1"


async def test_a_former_leader_that_wakes_up_changes_nothing(store):
    one, other = Membership(store, record("one")), Membership(store, record("other"))
    async with running(one.run()):
        await until(lambda: one.is_leader)
    one._token, one._kept_s = (await store.get(LEADER)).revision, time.monotonic() + 3600
    await store.txn([], [Delete(key=LEADER)])
    async with running(other.run()):
        await until(lambda: other.is_leader)
        assert one.is_leader, "it believes so"
        assert not await one.write([], [Put(key="a", value=b"stale")])
        assert not one.is_leader
        assert await store.get("a") is None


class Hives:
    """The hives' side of declarations, over HTTP: what was asked, and by whom."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, int]] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json() if request.method == "POST" else {}
        found = (
            request.match_info["node"],
            request.method,
            request.match_info.get("pool", ""),
            body.get("generation", 0),
        )
        self.calls.append(found)
        return web.json_response({}, status=202)


@pytest.fixture
async def hives():
    made = Hives()
    app = web.Application()
    app.router.add_post("/{node}/v2/pools", made.take)
    app.router.add_delete("/{node}/v2/pools/{pool}", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield made
    await runner.cleanup()


class Fleet:
    """A leader's parts over a real store."""

    def __init__(self, store, hives: Hives) -> None:
        self.clock, self.hives, self.store = Clock(), hives, store
        self.registry = Registry(clock=self.clock)
        self.membership = Membership(store, record("me"))
        self.state = State(
            store,
            self.registry,
            KeyGate(allow_anonymous=True),
            self.membership,
            Forwarder(self.registry, "me", ""),
        )
        self.assigner = Assigner(self.state, self.registry, "", clock=self.clock, lost_for_good_s=100.0)
        self.sequence = 0

    def node(self, name: str, free_gib: int, *pools: PoolReport) -> None:
        device = DeviceReport(
            id="g",
            kind="cuda",
            index=0,
            name="g",
            memory_total_bytes=80 << 30,
            memory_free_bytes=free_gib << 30,
        )
        request = RegisterRequest(
            node_id=name, address=f"{self.hives.url}/{name}", version="1", instance="h", pools=pools,
            capabilities=Capabilities(devices=(device,)),
        )  # fmt: skip
        if name in self.registry.nodes:
            self.sequence += 1
            self.registry.heartbeat(
                name, Heartbeat(instance="h", sequence=self.sequence, pools=pools, devices=(device,))
            )
        else:
            self.registry.register(request)

    async def declare(self, *, gib: int = 10, generation: int = 1, **more) -> None:
        spec = PoolSpec(id="p", model="m", **more)
        value = msgspec.json.encode(PoolRecord(pool=spec, memory_bytes=gib << 30, generation=generation))
        await self.store.txn([], [Put(key=POOLS + "p", value=value)])
        await until(
            lambda: (
                self.state.mirror.items.get(POOLS + "p")
                and self.state.mirror.items[POOLS + "p"].value == value
            )
        )

    async def run_pass(self) -> None:
        async with make_client() as client:
            await self.assigner.run_pass(client)
        revision = (await self.store.list("")).revision
        await until(lambda: all(item in self.state.mirror.items for item in [LEADER]) and revision >= 0)
        stored = {item.key: item.revision for item in (await self.store.list("")).items}
        await until(lambda: {k: i.revision for k, i in self.state.mirror.items.items()} == stored)
        self.clock.now_s += 10

    @property
    def home(self) -> Assignment | None:
        found = self.state.records(ASSIGNMENTS, Assignment)
        return found[0] if found else None


@pytest.fixture
async def fleet(store, hives):
    made = Fleet(store, hives)
    async with running(made.state.mirror.follow_for_ever(), made.membership.run()):
        await until(lambda: made.membership.is_leader)
        yield made


def report(generation: int, state: str = "ready", error: str | None = None) -> PoolReport:
    return PoolReport(pool_id="p", model="m", state=state, generation=generation, last_error=error)


async def test_a_pool_goes_where_it_fits_and_its_hive_is_told_until_it_reports_it(fleet):
    fleet.node("small", 5)
    fleet.node("large", 60)
    await fleet.declare()
    await fleet.run_pass()
    assert (fleet.home.node_id, fleet.home.generation) == ("large", 1)
    await fleet.run_pass()
    assert fleet.hives.calls == [("large", "POST", "", 1)] * 2
    fleet.node("large", 60, report(1))
    await fleet.run_pass()
    assert len(fleet.hives.calls) == 2


async def test_a_pool_that_fits_nowhere_says_so_and_goes_when_there_is_room(fleet):
    fleet.node("small", 5)
    await fleet.declare()
    await fleet.run_pass()
    assert fleet.home is None
    assert fleet.assigner.failures["p"] == "it fits on no living node"
    fleet.node("large", 60)
    await fleet.run_pass()
    assert fleet.home.node_id == "large"
    assert fleet.assigner.failures == {}


async def test_a_node_that_is_named_is_taken_and_changing_it_moves_the_pool(fleet):
    fleet.node("a", 60)
    fleet.node("b", 60)
    await fleet.declare(node="b")
    await fleet.run_pass()
    assert fleet.home.node_id == "b"
    fleet.node("b", 60, report(1))
    await fleet.declare(node="a", generation=2)
    await fleet.run_pass()
    assert (fleet.home.node_id, fleet.home.generation) == ("a", 2)
    assert ("b", "DELETE", "p", 0) in fleet.hives.calls


async def test_a_hive_that_says_it_does_not_fit_is_not_asked_again(fleet):
    fleet.node("a", 60)
    fleet.node("b", 50)
    await fleet.declare()
    await fleet.run_pass()
    assert fleet.home.node_id == "a"
    fleet.node("a", 60, report(1, "unready", "pool p: m does not fit: 3 GiB are missing"))
    await fleet.run_pass()
    assert (fleet.home.node_id, fleet.home.generation, fleet.home.refused) == ("b", 2, ("a",))


async def test_a_node_that_is_lost_for_a_while_keeps_its_pool_and_one_lost_for_good_does_not(fleet):
    fleet.node("a", 60)
    await fleet.declare()
    await fleet.run_pass()
    fleet.node("b", 50)
    for _ in range(40):
        fleet.clock.now_s += 1
        fleet.node("b", 50)
        fleet.registry.sweep()
    await fleet.run_pass()
    assert fleet.home.node_id == "a"
    for _ in range(80):
        fleet.clock.now_s += 1
        fleet.node("b", 50)
        fleet.registry.sweep()
    await fleet.run_pass()
    assert (fleet.home.node_id, fleet.home.generation) == ("b", 2)


async def test_a_changed_declaration_is_told_as_a_new_generation_in_the_same_place(fleet):
    fleet.node("a", 60)
    await fleet.declare()
    await fleet.run_pass()
    fleet.node("a", 60, report(1))
    await fleet.declare(generation=2, replicas=2)
    await fleet.run_pass()
    assert (fleet.home.node_id, fleet.home.generation) == ("a", 2)
    assert fleet.hives.calls[-1] == ("a", "POST", "", 2)


async def test_an_ended_pool_is_removed_at_its_hive_and_then_forgotten(fleet):
    fleet.node("a", 60)
    await fleet.declare()
    await fleet.run_pass()
    fleet.node("a", 60, report(1))
    await fleet.store.txn([], [Delete(key=POOLS + "p")])
    await until(lambda: POOLS + "p" not in fleet.state.mirror.items)
    await fleet.run_pass()
    assert fleet.hives.calls[-1] == ("a", "DELETE", "p", 0)
    assert fleet.home is not None
    fleet.node("a", 60)
    await fleet.run_pass()
    assert fleet.home is None
