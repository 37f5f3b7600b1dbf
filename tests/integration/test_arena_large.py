"""Large traces pass in bounded memory: a fresh process checks, rewrites and describes them."""

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

from skep.arena.trace.generate import random_events, tracked_config
from skep.arena.trace.stream import write_stream

MEMORY_MIB_MAX = 80
PROGRAM = """
import sys
from pathlib import Path
from skep.arena.actions import find_action
from skep.arena.trace.event import decode_event, encode_event
from skep.arena.trace.info import trace_info
from skep.arena.trace.stream import rewrite

source, edit = Path(sys.argv[1]), find_action("scale_up_replicas")


def scaled(position, raw):
    if b"app-7" not in raw:
        return None
    event = decode_event(raw, "event")
    for manifest in event["applied_objs"]:
        if manifest["metadata"]["name"] == "app-7":
            edit(manifest, None)
    return encode_event(event)


events = trace_info(source).events
same = rewrite(source, source.with_suffix(".same"), lambda position, raw: None)
changed = rewrite(source, source.with_suffix(".changed"), scaled)
peak_kib = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(events, same, changed, peak_kib // 1024)
"""


def run_over(folder: Path, count: int, workloads: int) -> None:
    source = folder / "large.msgpack"
    write_stream(source, random_events(count, seed=2, workloads=workloads), count, config=tracked_config())
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source)], capture_output=True, text=True, check=True
    )
    events, same, changed, peak_mib = map(int, told.stdout.split())
    assert (events, same) == (count, 0)
    assert filecmp.cmp(source, source.with_suffix(".same"), shallow=False)
    assert 0 < changed < count // 50
    assert peak_mib < MEMORY_MIB_MAX, f"{peak_mib} MiB for {source.stat().st_size >> 20} MiB"


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")


def test_twenty_thousand_events_in_bounded_memory(tmp_path: Path) -> None:
    run_over(tmp_path, 20_000, workloads=200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_events_in_bounded_memory(tmp_path: Path) -> None:
    run_over(tmp_path, 1_000_000, workloads=200)
