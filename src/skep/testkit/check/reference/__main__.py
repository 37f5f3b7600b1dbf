"""Run the reference server as a process: `python -m skep.testkit.check.reference --port 8000 [--fault CLAUSE]`."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys

import skep.testkit.check.clauses  # noqa: F401 - registers them
from skep.testkit.check.clause import CLAUSES
from skep.testkit.check.reference.server import Reference

DRAIN_S = 10.0


async def serve(port: int, faults: frozenset[str]) -> None:
    """Serve until SIGTERM; streams that run then are let finish."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    if "lifecycle.sigterm-drains" not in faults:
        loop.add_signal_handler(signal.SIGTERM, ending.set)
    if "lifecycle.no-orphan" in faults:
        subprocess.Popen(  # noqa: ASYNC220 - the orphan to be
            [sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True
        )
    salt = str(os.getpid()) if "lifecycle.restart-alike" in faults else ""
    server = Reference(faults=faults, port=port, salt=salt, shutdown_s=DRAIN_S)
    if "lifecycle.honest-readiness" in faults:
        server.key = "not yet"
    async with server:
        await ending.wait()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(prog="python -m skep.testkit.check.reference")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], choices=sorted(CLAUSES))
    given = parser.parse_args()
    asyncio.run(serve(given.port, frozenset(given.fault)))


if __name__ == "__main__":
    main()
