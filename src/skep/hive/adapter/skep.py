"""Our own worker: it inherits its socket, proves itself by its nonce, and asks for a token of its own."""

import sys

import aiohttp
import msgspec

from skep.errors.hive import NotOurs
from skep.errors.web import PeerFailed
from skep.hive.adapter import http
from skep.hive.adapter.base import PROBE_S_MAX, Launch, Order
from skep.hive.endpoint import Drained, Endpoint, Load, Look
from skep.hive.handoff import NONCE_VARIABLE
from skep.policy.health import Answer
from skep.policy.mask import visibility

TOKEN_VARIABLE = "SKEP_WORKER_TOKEN"  # noqa: S105 - the variable's name
DRAIN_MARGIN_S = 5.0
_OK = 200


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `GET /health`."""

    instance: str
    status: str = "ok"
    resident: bool = False
    slots_total: int = 0
    slots_free: int = 0
    queue_depth: int = 0
    kv_used: float = 0.0
    tokens_total: int = 0
    error: str | None = None


class _DrainReply(msgspec.Struct, frozen=True, kw_only=True):
    force_stopped: bool = False
    jobs_cancelled: int = 0
    duration_ms: int = 0


class SkepAdapter:
    """The engine `skep`."""

    abilities = frozenset({"jobs", "cancel", "drain", "execute", "embeddings", "progress"})
    takes_socket = True

    def __init__(self, client: aiohttp.ClientSession, *, probe_s: float = PROBE_S_MAX) -> None:
        self._client, self._probe_s = client, probe_s

    def launch(self, order: Order) -> Launch:
        """Return `skep worker …` of this very installation."""
        pool = order.pool
        argv = [
            sys.executable, "-m", "skep.cli.main", "worker",
            "--worker-id", f"{pool.id}-{order.replica_id}",
            "--model", order.model_path,
            "--served-name", order.model_name,
            "--backend", pool.backend,
            "--devices", ",".join(order.mask.ids),
            "--slots", str(pool.slots),
            "--context", str(pool.context),
            "--listen-fd", str(order.listen_fd),
            "--report-fd", str(order.report_fd),
        ]  # fmt: skip
        if pool.split:
            argv += ["--split", ",".join(f"{share:g}" for share in pool.split)]
        if pool.deterministic:
            argv += ["--deterministic"]
        for alias in order.aliases:
            argv += ["--alias", alias]
        if order.chat_template is not None:
            argv += ["--chat-template", order.chat_template]
        env = {**visibility(order.mask), NONCE_VARIABLE: order.nonce, TOKEN_VARIABLE: order.token}
        return Launch(argv=tuple(argv), env=env)

    async def look(self, endpoint: Endpoint) -> Look:
        """Read `/health`."""
        try:
            status, body = await http.ask(self._client, endpoint, "/health", limit_s=self._probe_s)
            health = msgspec.json.decode(body, type=Health)
        except PeerFailed as error:
            return Look(answer=Answer.SILENT, detail=str(error))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Look(answer=Answer.FOREIGN, detail=f"not a worker's /health: {error}")
        if health.instance != endpoint.nonce:
            return Look(answer=Answer.FOREIGN, detail="another process answers on this port")
        load = Load(
            slots_total=health.slots_total,
            slots_free=health.slots_free,
            queue_depth=health.queue_depth,
            kv_used=min(max(health.kv_used, 0.0), 1.0),
            work_total=health.tokens_total,
        )
        return Look(
            answer=_answer(status, health),
            load=load,
            resident=health.resident,
            detail=health.error or health.status,
        )

    async def prove(self, endpoint: Endpoint) -> None:
        """Generate one token, between two looks at whose process it is. Raises: CannotGenerate, NotOurs."""
        await http.prove_by_openai(self._client, endpoint)
        look = await self.look(endpoint)
        if look.answer is Answer.FOREIGN:
            raise NotOurs(f"{endpoint.url}: {look.detail}", url=endpoint.url)

    async def drain(self, endpoint: Endpoint, *, deadline_s: float) -> Drained:
        """Ask the worker, which answers when it is empty. Raises: PeerFailed."""
        status, body = await http.ask(
            self._client,
            endpoint,
            "/drain",
            body={"deadline_ms": round(deadline_s * 1000)},
            limit_s=deadline_s + DRAIN_MARGIN_S,
        )
        if status >= 300:  # noqa: PLR2004 - not a success
            raise PeerFailed(f"{endpoint.url}/drain answers {status}", url=endpoint.url, status=status)
        try:
            reply = msgspec.json.decode(body or b"{}", type=_DrainReply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PeerFailed(f"{endpoint.url}/drain: {error}", url=endpoint.url) from error
        return Drained(
            force_stopped=reply.force_stopped or reply.jobs_cancelled > 0,
            jobs_cancelled=reply.jobs_cancelled,
            duration_ms=reply.duration_ms,
        )


def _answer(status: int, health: Health) -> Answer:
    if health.error in {"device_error", "device_missing"}:
        return Answer.DEVICE_ERROR
    if health.status == "failed" or (status != _OK and health.status not in {"draining", "loading"}):
        return Answer.MUTE
    return Answer.WELL
