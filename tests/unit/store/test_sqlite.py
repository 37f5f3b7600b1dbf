"""What only the SQLite store promises."""

import contextlib
import stat

import pytest

from skep.errors import InvalidConfig
from skep.errors.store import LeaseLost, StoreBroken, StoreUnavailable, WatchCompacted
from skep.store import sqlite_rows
from skep.store.address import open_store
from skep.store.base import Put
from skep.store.etcd import EtcdStore
from skep.store.sqlite import SqliteStore


async def test_a_restart_keeps_items_revisions_and_leases(tmp_path):
    path = tmp_path / "deep" / "store.db"
    async with SqliteStore(path) as store:
        lease = await store.lease(60)
        revision = (await store.txn([], [Put(key="a", value=b"1", lease_id=lease.id)])).revision
    async with SqliteStore(path) as store:
        item = await store.get("a")
        assert (item.value, item.revision, item.lease_id) == (b"1", revision, lease.id)


async def test_the_file_is_its_owners_alone(tmp_path):
    async with SqliteStore(tmp_path / "store.db"):
        assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o600


async def test_a_reboot_gives_leases_their_term_anew(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    async with SqliteStore(path, clock=lambda: 1_000_000.0) as store:
        lease = await store.lease(5)
        await store.txn([], [Put(key="a", value=b"1", lease_id=lease.id)])
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another boot\n")
    monkeypatch.setattr("skep.store.sqlite._BOOT_ID", boot_id)
    now = [10.0]
    async with SqliteStore(path, clock=lambda: now[0], tick_s=0.01) as store:
        assert await store.get("a") is not None
        now[0] = 15.5
        with pytest.raises(LeaseLost):
            await store.txn([], [Put(key="b", value=b"", lease_id=lease.id)])


async def test_two_processes_share_a_file_and_see_each_others_commits(tmp_path):
    async with SqliteStore(tmp_path / "s.db", tick_s=0.02) as one, SqliteStore(tmp_path / "s.db") as other:
        since = (await one.list("")).revision
        await other.txn([], [Put(key="a", value=b"1")])
        async with contextlib.aclosing(one.watch("", after_revision=since)) as batches:
            async for batch in batches:
                assert batch[0].value == b"1"
                break


async def test_history_is_bounded_and_a_watch_from_before_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_rows, "HISTORY_REVISIONS_MAX", 50)
    async with SqliteStore(tmp_path / "s.db") as store:
        for n in range(200):
            await store.txn([], [Put(key="a", value=str(n).encode())])
        with pytest.raises(WatchCompacted):
            await anext(aiter(store.watch("", after_revision=1)))
        async with contextlib.aclosing(store.watch("", after_revision=190)) as batches:
            assert (await anext(batches))[0].value == b"190"


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 30])
async def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "s.db"
    path.write_bytes(content)
    with pytest.raises(StoreBroken, match="not a store"):
        await SqliteStore(path).__aenter__()
    assert path.read_bytes() == content


async def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path) as store:
        await store._in_thread(lambda: store._open.execute("PRAGMA user_version = 99"))
    with pytest.raises(StoreBroken, match="upgrade"):
        await SqliteStore(path).__aenter__()


async def test_a_folder_in_the_files_place_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailable):
        await SqliteStore(tmp_path).__aenter__()


def test_addresses(tmp_path):
    assert isinstance(open_store(f"sqlite:{tmp_path}/s.db"), SqliteStore)
    assert isinstance(open_store("etcd:http://a:2379,http://b:2379"), EtcdStore)
    for wrong in ("", "sqlite:", "etcd:", "etcd:ftp://a", "redis:x", "/path"):
        with pytest.raises(InvalidConfig):
            open_store(wrong)
