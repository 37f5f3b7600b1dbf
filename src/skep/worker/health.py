"""`GET /health`: answered from bytes that are made at most every 20 ms, so that it costs next to nothing under load."""

import time
from pathlib import Path
from typing import Final

from skep.worker.chunks import encode_json
from skep.worker.service import Service

FRESH_S: Final = 0.02


class Health:
    """The cached answer. Figures of slots are at most FRESH_S old, figures of memory a second."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._body = b""
        self._made_at = 0.0

    def body(self) -> bytes:
        """Return the answer as JSON."""
        now = time.monotonic()
        if now - self._made_at >= FRESH_S or not self._body:
            self._body = encode_json(self._fields())
            self._made_at = now
        return self._body

    @property
    def status(self) -> str:
        """Return loading, ready, draining or failed."""
        service = self._service
        if service.is_resident and service.engine.fault is not None:
            return "failed"
        if service.is_draining:
            return "draining"
        return "ready" if service.is_ready else "loading"

    def _fields(self) -> dict[str, object]:
        service, options = self._service, self._service.options
        ram, vram = service.memory()
        found: dict[str, object] = {
            "status": self.status,
            "instance": options.nonce,
            "worker_id": options.worker_id,
            "model": service.served_name,
            "resident": service.is_resident,
            "device_mask": options.devices,
            "vram_used_bytes": vram,
            "ram_used_bytes": ram,
            "context": options.context,
            "slots_total": options.slots,
            "slots_free": 0,
            "quantization": None,
            "tokenizer": None,
            "vocab_size": None,
            "uptime_s": round(time.monotonic() - service.started_at, 3),
            "progress": round(service.loading, 3),
            "queue_depth": 0,
            "kv_used": 0.0,
            "backend": options.backend,
            "model_file": Path(options.model).name,
        }
        if service.is_resident:
            info, stats = service.model.info, service.engine.stats()
            fault = service.engine.fault
            found |= {
                "quantization": info.quantization,
                "tokenizer": info.tokenizer,
                "vocab_size": info.vocab_size,
                "slots_total": stats.slots_total,
                "slots_free": stats.slots_free,
                "queue_depth": stats.waiting,
                "kv_used": round(stats.kv_used, 4),
                "tokens_total": stats.prompt_tokens_total + stats.generated_tokens_total,
                "error": None if fault is None else fault.code,
            }
        return found
