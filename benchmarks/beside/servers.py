"""The servers under test: `skep worker`, and the HTTP server of the installed llama.cpp library.

Run as a program it is the latter: `servers.py MODEL PORT THREADS SLOTS CONTEXT`.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A server under test."""

    name: str
    pid: int
    port: int
    cpu_to_ready_s: float

    def cpu_s(self) -> float:
        """Return the CPU time so far."""
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """User and system time of a process (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def serve_reference(model: str, port: int, threads: int, slots: int, context: int) -> None:
    """Run the reference in this process: the library's own HTTP server."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port, params.warmup = port, True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


@contextmanager
def process(argv: list[str], log: Path, **kwargs: object) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running child; stop it afterwards."""
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=output, **kwargs)  # type: ignore[call-overload]
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(8)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            reply = b""
            while chunk := link.recv(65536):
                reply += chunk
    except OSError:
        return False
    return b" 200 " in reply[:20] and b'"loading"' not in reply


def wait_ready(name: str, child: subprocess.Popen[bytes], port: int, log: Path) -> Server:
    until = time.monotonic() + 60
    while not answers(port, "/health"):
        if child.poll() is not None or time.monotonic() > until:
            sys.exit(f"{name} did not start:\n{log.read_text()}")
        time.sleep(0.002)
    return Server(name, child.pid, port, cpu_s(child.pid))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def skep_worker(
    model: str, folder: Path, *, threads: int, slots: int, context: int, extra: tuple[str, ...] = ()
) -> Iterator[Server]:
    port, log = free_port(), folder / "skep.log"
    argv = [sys.executable, "-m", "skep.cli.main", "worker", "--model", model, "--port", str(port)]
    argv += ["--slots", str(slots), "--context", str(context), "--threads", str(threads)]
    with process([*argv, "--served-name", "m", *extra], log) as child:
        yield wait_ready("skep", child, port, log)


@contextmanager
def reference(model: str, folder: Path, *, threads: int, slots: int, context: int) -> Iterator[Server]:
    port, log = free_port(), folder / "reference.log"
    argv = [sys.executable, __file__, model, *map(str, (port, threads, slots, context))]
    with process(argv, log) as child:
        yield wait_ready("llama.cpp's server", child, port, log)


if __name__ == "__main__":
    serve_reference(sys.argv[1], *map(int, sys.argv[2:]))
