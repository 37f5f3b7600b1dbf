"""Other people's servers: any program that speaks OpenAI's API on a port that it is told.

It cannot carry our nonce in its answers, so the kernel vouches for it: the listening socket on its port must belong to
its process group. What it cannot do (list jobs, drain) is told in the pool's status and done at the gateway.
"""

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence

import aiohttp

from skep.errors import InvalidInput
from skep.errors.hive import NotOurs
from skep.errors.web import PeerFailed
from skep.hive.adapter import http
from skep.hive.adapter.base import PROBE_S_MAX, Launch, Order
from skep.hive.adapter.gauges import load_of
from skep.hive.endpoint import Drained, Endpoint, Load, Look
from skep.policy.health import Answer
from skep.policy.mask import visibility
from skep.process.socket import group_listens

_OK, _LOADING = 200, 503
NVIDIA_PREFIX = "GPU-"
"""How the UUID of an NVIDIA device begins; llama.cpp calls those that it can see CUDA0, CUDA1, …"""
IDLE_LOOK_S = 0.2
IDLE_LOOKS = 2
"""How many looks in a row must find it idle: a job may be between two of its parts."""

Argv = Callable[[Order], Sequence[str]]


class ForeignAdapter:
    """A server with `GET /health` (or only `/v1/models`) and the `/v1` routes."""

    abilities = frozenset[str]()
    takes_socket = False

    def __init__(self, client: aiohttp.ClientSession, argv: Argv, *, probe_s: float = PROBE_S_MAX) -> None:
        self._client, self._argv, self._probe_s = client, argv, probe_s

    def launch(self, order: Order) -> Launch:
        """Return its command line; the mask goes into the environment, as for our own. Raises: InvalidInput."""
        if order.pool.deterministic:
            raise InvalidInput(
                f"pool {order.pool.id}: `deterministic` is what the engine skep can promise; remove it, or use that engine",
                pool_id=order.pool.id,
            )
        return Launch(argv=tuple(self._argv(order)), env=dict(visibility(order.mask)))

    async def look(self, endpoint: Endpoint) -> Look:
        """Ask whose the port is, then whether it is well, then how busy it is."""
        if not await asyncio.to_thread(group_listens, endpoint.pgid, endpoint.port):
            return Look(answer=Answer.SILENT, resident=False, detail="it does not listen on its port")
        try:
            status, _ = await http.ask(self._client, endpoint, "/health", limit_s=self._probe_s)
            if status not in (_OK, _LOADING):
                status, _ = await http.ask(self._client, endpoint, "/v1/models", limit_s=self._probe_s)
        except PeerFailed as error:
            return Look(answer=Answer.SILENT, resident=False, detail=str(error))
        if status != _OK:
            return Look(answer=Answer.MUTE, resident=False, detail=f"it answers {status}")
        return Look(answer=Answer.WELL, load=await self._load(endpoint), detail="ok")

    async def prove(self, endpoint: Endpoint) -> None:
        """Generate one token, and check that the port is still its own. Raises: CannotGenerate, NotOurs."""
        await http.prove_by_openai(self._client, endpoint)
        if not await asyncio.to_thread(group_listens, endpoint.pgid, endpoint.port):
            raise NotOurs(f"{endpoint.url}: the port belongs to another process", url=endpoint.url)

    async def drain(self, endpoint: Endpoint, *, deadline_s: float) -> Drained:
        """Wait until its gauges say that it is idle; the gateway sends it nothing more. Never asks it anything else."""
        began, idle = time.monotonic(), 0
        while time.monotonic() - began < deadline_s:
            load = await self._load(endpoint)
            idle = idle + 1 if load is not None and load.is_idle else 0
            if idle >= IDLE_LOOKS:
                return Drained(duration_ms=_since_ms(began))
            await asyncio.sleep(IDLE_LOOK_S)
        return Drained(force_stopped=True, duration_ms=_since_ms(began))

    async def _load(self, endpoint: Endpoint) -> Load | None:
        """Return its load by its Prometheus gauges; None when it has none that are known."""
        try:
            status, body = await http.ask(self._client, endpoint, "/metrics", limit_s=self._probe_s)
        except PeerFailed:
            return None
        return load_of(body.decode("utf-8", "replace"), slots=endpoint.slots) if status == _OK else None


def with_more(argv: Argv, more: Sequence[str]) -> Argv:
    """Return a command line that ends in the arguments of the engine's declaration."""
    return lambda order: [*argv(order), *more]


def llama_server_argv(order: Order) -> list[str]:
    """Return the command line of llama.cpp's own server."""
    pool = order.pool
    argv = [
        order.program,
        "--model", order.model_path,
        "--alias", order.model_name,
        "--host", order.host,
        "--port", str(order.port),
        "--parallel", str(pool.slots),
        "--ctx-size", str(pool.context * pool.slots),
        "--metrics", "--slots",
    ]  # fmt: skip
    if order.mask.is_cpu:
        argv += ["--device", "none", "--n-gpu-layers", "0"]
    else:
        argv += ["--n-gpu-layers", "999"]
        # Named, so that a build without CUDA ends at once instead of serving from the CPU.
        if all(one.startswith(NVIDIA_PREFIX) for one in order.mask.ids):
            argv += ["--device", ",".join(f"CUDA{number}" for number in range(len(order.mask.ids)))]
    if order.chat_template is not None:
        argv += ["--jinja", "--chat-template", order.chat_template]
    if pool.split:
        argv += ["--tensor-split", ",".join(f"{share:g}" for share in pool.split)]
    return argv


def vllm_argv(order: Order) -> list[str]:
    """Return the command line of `vllm serve`."""
    pool = order.pool
    if pool.split:
        raise InvalidInput(f"pool {pool.id}: vLLM splits evenly only; remove `split`", pool_id=pool.id)
    argv = [
        order.program, "serve", order.model_path,
        "--served-model-name", order.model_name,
        "--host", order.host,
        "--port", str(order.port),
        "--max-model-len", str(pool.context),
        "--max-num-seqs", str(pool.slots),
        "--tensor-parallel-size", str(1 if order.mask.is_cpu else len(order.mask.ids)),
    ]  # fmt: skip
    if order.chat_template is not None:
        argv += ["--chat-template", order.chat_template]
    return argv


def command_argv(template: Sequence[str], program: str) -> Argv:
    """Return what fills a `command` engine's argv: `{port}`, `{host}`, `{model}`, `{name}`, `{slots}`, `{context}`."""

    def fill(order: Order) -> list[str]:
        values = {
            "port": str(order.port),
            "host": order.host,
            "model": order.model_path,
            "name": order.model_name,
            "slots": str(order.pool.slots),
            "context": str(order.pool.context),
        }
        filled = [_fill(part, values) for part in template]
        return [program or filled[0], *filled[1:]]

    return fill


def _fill(part: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        part = part.replace(f"{{{name}}}", value)
    if part.startswith("{") and part.endswith("}") and part[1:-1].isidentifier():
        raise InvalidInput(f"{shlex.quote(part)} in the engine's argv is none of {', '.join(values)}")
    return part


def _since_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
