"""The contract of `Store`, run over SQLite and over a real etcd."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from skep.errors import InvalidInput
from skep.errors.store import LeaseLost, StoreUnavailable
from skep.store.base import TXN_CHANGES_MAX, VALUE_BYTES_MAX, Compare, Delete, Put, Store
from skep.store.etcd import EtcdStore
from skep.store.sqlite import SqliteStore


@pytest.fixture(scope="module")
def etcd_url(module_etcd) -> str:
    return module_etcd.urls[0]


@pytest.fixture(params=["sqlite", "etcd"])
async def store(request, tmp_path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        made: Store = SqliteStore(tmp_path / "store.db", tick_s=0.05)
    else:
        namespace = f"/test/{request.node.name}/"
        made = EtcdStore([request.getfixturevalue("etcd_url")], namespace=namespace)
    async with made:
        yield made


async def put(store: Store, key: str, value: bytes = b"v", **more) -> int:
    committed = await store.txn([], [Put(key=key, value=value, **more)])
    assert committed.done
    return committed.revision


async def test_what_was_put_is_got_with_its_revision_and_absence_is_none(store):
    assert await store.get("a") is None
    revision = await put(store, "a", b"\x00\xff")
    item = await store.get("a")
    assert (item.value, item.revision, item.lease_id) == (b"\x00\xff", revision, 0)


async def test_an_empty_value_is_a_value(store):
    await put(store, "empty", b"")
    assert (await store.get("empty")).value == b""


async def test_a_list_is_the_prefix_in_order_and_nothing_else(store):
    for key in ("nodes/b", "nodes/a", "nodesx", "nodes0", "node", "nodes/ü"):
        await put(store, key)
    assert [item.key for item in (await store.list("nodes/")).items] == ["nodes/a", "nodes/b", "nodes/ü"]


async def test_a_transaction_is_all_or_nothing(store):
    first = await put(store, "a")
    stale = await store.txn(
        [Compare(key="a", revision=first + 99)], [Put(key="b", value=b"1"), Delete(key="a")]
    )
    assert not stale.done
    assert await store.get("b") is None
    done = await store.txn([Compare(key="a", revision=first)], [Put(key="b", value=b"1"), Delete(key="a")])
    assert done.done
    assert done.revision > first
    assert (await store.get("b")).revision == done.revision
    assert await store.get("a") is None


async def test_a_comparison_with_zero_asks_for_absence(store):
    create = [Compare(key="one", revision=0)], [Put(key="one", value=b"1")]
    assert (await store.txn(*create)).done
    assert not (await store.txn(*create)).done


async def test_of_many_racing_writers_exactly_one_wins_each_round(store):
    base = await put(store, "counter", b"0")
    tries = [
        store.txn([Compare(key="counter", revision=base)], [Put(key="counter", value=str(n).encode())])
        for n in range(8)
    ]
    assert [one.done for one in await asyncio.gather(*tries)].count(True) == 1


async def test_deleting_what_is_absent_is_fine(store):
    assert (await store.txn([], [Delete(key="nothing")])).done


async def test_a_watch_sees_later_changes_in_order_and_only_its_prefix(store):
    await put(store, "w/old")
    since = (await store.list("w/")).revision
    await put(store, "w/a", b"1")
    await put(store, "other", b"x")
    await store.txn([], [Put(key="w/a", value=b"2"), Put(key="w/b", value=b"3")])
    await store.txn([], [Delete(key="w/a")])
    seen = []
    async with asyncio.timeout(10):
        async with contextlib.aclosing(store.watch("w/", after_revision=since)) as batches:
            async for batch in batches:
                seen.append([(event.key, event.value) for event in batch])
                if len(seen) == 3:
                    break
    assert seen[0] == [("w/a", b"1")]
    assert sorted(seen[1]) == [("w/a", b"2"), ("w/b", b"3")]
    assert seen[2] == [("w/a", None)]


async def test_a_waiting_watch_is_woken_by_a_commit(store):
    since = (await store.list("w/")).revision
    woken = asyncio.create_task(_first(store, "w/", since))
    await asyncio.sleep(0)
    await put(store, "w/new", b"1")
    async with asyncio.timeout(10):
        assert [(event.key, event.value) for event in await woken] == [("w/new", b"1")]


async def _first(store: Store, prefix: str, since: int):
    async with contextlib.aclosing(store.watch(prefix, after_revision=since)) as batches:
        return await anext(batches)


async def test_keys_under_a_lease_go_when_it_is_revoked_and_the_watcher_sees_it(store):
    lease = await store.lease(30)
    since = await put(store, "l/a", lease_id=lease.id)
    assert (await store.get("l/a")).lease_id == lease.id
    await put(store, "l/free")
    await lease.revoke()
    assert [item.key for item in (await store.list("l/")).items] == ["l/free"]
    async with asyncio.timeout(10):
        async with contextlib.aclosing(store.watch("l/", after_revision=since)) as batches:
            async for batch in batches:
                if batch[0].value is None:
                    assert batch[0].key == "l/a"
                    break
    await lease.revoke()


async def test_a_lease_that_nobody_keeps_expires_with_its_keys(store):
    lease = await store.lease(1)
    since = await put(store, "l/a", lease_id=lease.id)
    async with asyncio.timeout(20):
        assert [event.value for event in await _first(store, "l/", since)] == [None]
    assert await store.get("l/a") is None
    with pytest.raises(LeaseLost):
        await lease.keep()
    with pytest.raises(LeaseLost):
        await put(store, "l/b", lease_id=lease.id)


async def test_a_lease_that_is_kept_outlives_its_term(store):
    kept, other = await store.lease(1), await store.lease(2)
    await put(store, "kept", lease_id=kept.id)
    since = await put(store, "clock/other", lease_id=other.id)
    async with asyncio.timeout(20):
        gone = asyncio.create_task(_first(store, "clock/", since))
        while not gone.done():
            await kept.keep()
            await asyncio.wait([gone], timeout=0.2)
    assert await store.get("kept") is not None


async def test_a_put_without_the_lease_frees_the_key_from_it(store):
    lease = await store.lease(30)
    await put(store, "a", lease_id=lease.id)
    await put(store, "a", b"mine")
    await lease.revoke()
    assert (await store.get("a")).value == b"mine"


@pytest.mark.parametrize(
    "changes",
    [
        [Put(key="", value=b"")],
        [Put(key="a\0b", value=b"")],
        [Put(key="k" * 513, value=b"")],
        [Put(key="a", value=b"x" * (VALUE_BYTES_MAX + 1))],
        [Put(key="a", value=b""), Delete(key="a")],
        [Put(key=f"k{n}", value=b"") for n in range(TXN_CHANGES_MAX + 1)],
    ],
    ids=["empty", "nul", "long", "large", "twice", "many"],
)
async def test_what_is_too_much_is_refused_before_anything_changes(store, changes):
    with pytest.raises(InvalidInput):
        await store.txn([], changes)
    assert (await store.list("")).items == ()


async def test_a_closed_store_says_that_it_is_unavailable(tmp_path, store):
    await store.__aexit__(None, None, None)
    with pytest.raises(StoreUnavailable):
        await store.get("a")
