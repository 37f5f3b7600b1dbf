import asyncio
import errno
import os
from pathlib import Path

import pytest

from skep.errors.hive import HandoffFailed
from skep.hive import files
from skep.hive.handoff import HandoffFolder, SpawnFolder, SpawnRecord
from skep.hive.watcher import Change, HandoffWatcher
from skep.testkit.waiting import patient_s
from skep.wire import handoff as codec
from skep.wire.handoff import Handoff, HandoffModel


def handoff(replica_id: str = "r0", **changes) -> Handoff:
    fields = {
        "version": 1, "pool_id": "pool-0", "replica_id": replica_id, "engine": "skep", "engine_version": "1",
        "url": "http://127.0.0.1:1", "pid": 4242, "pid_started_at": 9, "nonce": "n", "device_mask": ("cpu",), "slots_total": 4,
        "model": HandoffModel(name="m", ref="m", path="m"), "written_at": 1.0,
    }  # fmt: skip
    return Handoff(**(fields | changes))


@pytest.fixture
def folder(tmp_path: Path) -> HandoffFolder:
    found = HandoffFolder(tmp_path)
    found.open()
    return found


def test_a_handoff_is_written_read_and_removed(folder: HandoffFolder) -> None:
    path = folder.write(handoff())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.handoff for one in folder.scan()] == [handoff()]
    assert folder.remove("pool-0", "r0")
    assert not folder.remove("pool-0", "r0")
    assert folder.scan() == []


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(folder, monkeypatch) -> None:
    folder.write(handoff())

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(HandoffFailed, match="No space left"):
        folder.write(handoff(url="http://127.0.0.1:2"))
    monkeypatch.undo()
    assert [one.handoff.url for one in folder.scan()] == ["http://127.0.0.1:1"]
    assert [path.name for path in folder.path.iterdir()] == ["pool-0-r0.json"]


def test_what_an_interrupted_writer_left_is_removed_at_the_next_start(folder: HandoffFolder) -> None:
    (folder.path / ".pool-0-r0.json.77.tmp").write_text("half")
    folder.open()
    assert list(folder.path.iterdir()) == []


def test_malformed_foreign_and_half_written_files_are_told_and_left(folder: HandoffFolder) -> None:
    folder.write(handoff())
    whole = codec.encode(handoff("r1"))
    (folder.path / "pool-0-r1.json").write_bytes(whole[:-20])
    (folder.path / "pool-0-r2.json").write_bytes(whole)
    (folder.path / "huge.json").write_bytes(b" " * (codec.BYTES_MAX + 5))
    (folder.path / "dir.json").mkdir()
    found = {one.path.name: one for one in folder.scan()}
    assert found["pool-0-r0.json"].handoff is not None
    assert all(found[name].error for name in ("pool-0-r1.json", "pool-0-r2.json", "huge.json", "dir.json"))


def test_a_record_of_a_spawn_outlives_us(tmp_path: Path) -> None:
    spawns = SpawnFolder(tmp_path, now_s=lambda: 5.0)
    spawns.open()
    spawns.write(SpawnRecord(pool_id="pool-0", replica_id="r0", nonce="n"))
    (tmp_path / "spawns" / "bad.json").write_text("{")
    (record,) = SpawnFolder(tmp_path).scan()
    assert (record.nonce, record.pid, record.recorded_at) == ("n", 0, 5.0)
    spawns.remove("pool-0", "r0")
    assert SpawnFolder(tmp_path).scan() == []


def test_a_watcher_sees_new_rewritten_deleted_and_malformed_files(folder: HandoffFolder) -> None:
    watcher = HandoffWatcher(folder.path)

    def look() -> list[tuple[Change, str]]:
        return [(one.change, one.path.name) for one in watcher.look()]

    assert look() == []
    folder.write(handoff())
    assert look() == [(Change.NEW, "pool-0-r0.json")]
    assert look() == []
    folder.write(handoff(url="http://127.0.0.1:2"))
    assert look() == [(Change.REWRITTEN, "pool-0-r0.json")]
    path = folder.path / "pool-0-r1.json"
    path.write_bytes(codec.encode(handoff("r1"))[:50])
    assert look() == [(Change.MALFORMED, "pool-0-r1.json")]
    assert look() == [], "told once"
    path.write_bytes(codec.encode(handoff("r1")))
    assert look() == [(Change.NEW, "pool-0-r1.json")]
    folder.remove("pool-0", "r0")
    (gone,) = watcher.look()
    assert (gone.change, gone.handoff.replica_id) == (Change.DELETED, "r0")
    assert watcher.malformed == 1


def test_a_watched_folder_may_come_and_go(tmp_path: Path) -> None:
    watcher = HandoffWatcher(tmp_path / "engines")
    assert watcher.look() == []
    folder = HandoffFolder(tmp_path)
    folder.open()
    folder.write(handoff())
    assert [one.change for one in watcher.look()] == [Change.NEW]
    folder.remove("pool-0", "r0")
    folder.path.rmdir()
    assert [one.change for one in watcher.look()] == [Change.DELETED]


async def test_following_starts_with_what_is_there(folder: HandoffFolder) -> None:
    folder.write(handoff())
    watcher = HandoffWatcher(folder.path, look_s=0.01)
    seen = []
    async for sighting in watcher.follow():
        seen.append(sighting.change)
        if len(seen) == 1:
            folder.remove("pool-0", "r0")
        else:
            break
    assert seen == [Change.NEW, Change.DELETED]


async def test_by_default_a_change_is_told_within_two_seconds(folder: HandoffFolder) -> None:
    folder.write(handoff())
    following = HandoffWatcher(folder.path).follow()
    assert (await anext(following)).change is Change.NEW
    folder.remove("pool-0", "r0")
    async with asyncio.timeout(patient_s(2.0)):
        assert (await anext(following)).change is Change.DELETED
    await following.aclose()


@pytest.mark.root
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        folder = HandoffFolder(disk)
        folder.open()
        folder.write(handoff())
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(b"x" * 100_000)
        with pytest.raises(HandoffFailed, match="No space left"):
            folder.write(handoff(url="http://127.0.0.1:2"))
        assert [one.handoff.url for one in folder.scan()] == ["http://127.0.0.1:1"]
        (disk / "filler").unlink()
        folder.write(handoff(url="http://127.0.0.1:2"))
        assert [one.handoff.url for one in folder.scan()] == ["http://127.0.0.1:2"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_reader_ever_sees_half_a_file(tmp_path: Path) -> None:
    import threading

    path, stop, seen = tmp_path / "x.json", threading.Event(), set()
    files.write_atomically(path, b"a" * 50_000)

    def read() -> None:
        while not stop.is_set():
            data = path.read_bytes()
            seen.add((len(data), data[:1], data[-1:]))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        files.write_atomically(path, b"ab"[number % 2 : number % 2 + 1] * 50_000)
    stop.set()
    reader.join()
    assert seen <= {(50_000, b"a", b"a"), (50_000, b"b", b"b")}
