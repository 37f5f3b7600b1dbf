"""A model hub on loopback: files by HTTP with Range and ETag, and the faults that real hubs have."""

import hashlib
import http.server
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHUNK_BYTES = 16_384


@dataclass
class HubFault:
    """What goes wrong, and how often. `kind`: unavailable (503 with Retry-After), truncated, wrong_bytes, refused_range."""

    kind: str
    times: int = 1


@dataclass
class HubFile:
    """A file and what was asked of it. `delay_s` is how long sending it takes."""

    data: bytes
    delay_s: float = 0.0
    requests: list[str] = field(default_factory=list)
    faults: list[HubFault] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """The digest of the right bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def next_fault(self) -> str:
        """Take the next fault; empty when all goes well."""
        while self.faults:
            fault = self.faults[0]
            if fault.times > 0:
                fault.times -= 1
                return fault.kind
            self.faults.pop(0)
        return ""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    hub: "FakeHub"


class FakeHub:
    """Serves until it is closed."""

    def __init__(self) -> None:
        self.files: dict[str, HubFile] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="skep-hub")
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, source: Path | bytes, *, delay_s: float = 0.0) -> str:
        """Offer a file; return the reference of a model, checksum included."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        file = self.files[name] = HubFile(data, delay_s)
        return f"{self.url}/{name}#sha256={file.sha256}"

    def close(self) -> None:
        """Stop serving; running answers end first."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. `server` is ours, and knows the hub."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, *_: Any) -> None:
        """Say nothing: `requests` of the file has it."""

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        file = self.server.hub.files.get(self.path.strip("/"))
        if file is None:
            self._answer(404)
            return
        asked = self.headers.get("range", "")
        file.requests.append(f"{self.command} {asked}".strip())
        fault = file.next_fault() if with_body else ""
        if fault == "unavailable":
            self._answer(503, {"retry-after": "1"})
            return
        if asked and fault == "refused_range":
            self._answer(416, {"content-range": f"bytes */{len(file.data)}"})
            return
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked.startswith("bytes=") else 0
        data = file.data[::-1] if fault == "wrong_bytes" else file.data
        self._send(file, data[start:], start=start if asked else None, fault=fault, with_body=with_body)

    def _send(self, file: HubFile, data: bytes, *, start: int | None, fault: str, with_body: bool) -> None:
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("content-range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
        self.send_header("content-length", str(len(data)))
        self.send_header("accept-ranges", "bytes")
        self.send_header("etag", f'"{file.sha256[:16]}"')
        self.end_headers()
        if not with_body:
            return
        stop = len(data) // 2 if fault == "truncated" else len(data)
        pause_s = file.delay_s / max(1, len(data) // CHUNK_BYTES)
        try:
            for offset in range(0, stop, CHUNK_BYTES):
                self.wfile.write(data[offset : min(stop, offset + CHUNK_BYTES)])
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if fault == "truncated":
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()
