"""What the test process holds, as a record of a proof bundle."""

import time

from skep.proof.records import ResourceRecord
from skep.testkit.ledger.device import used_bytes
from skep.testkit.ledger.snapshot import listening_port, rss_bytes, take


def resource_record(scenario: str, phase: str) -> ResourceRecord:
    """What this process holds now, as a record of the bundle."""
    held = take()
    ports = sum(listening_port(fd) is not None for fd, target in held.fds if target.startswith("socket:"))
    return ResourceRecord(
        scenario=scenario,
        phase=phase,
        at=time.time(),
        rss_bytes=rss_bytes(),
        fds=len(held.fds),
        threads=len(held.threads),
        ports=ports,
        children=len(held.children),
        temporary_files=len(held.files),
        device_memory_bytes=used_bytes(),
    )
