"""Which adapter speaks to which engine."""

import aiohttp

from skep.hive.adapter.base import EngineAdapter, probe_limit_s
from skep.hive.adapter.foreign import ForeignAdapter, command_argv, llama_server_argv, vllm_argv, with_more
from skep.hive.adapter.skep import SkepAdapter
from skep.spec.engine import EngineKind, EngineSpec


def adapter_for(
    engine: EngineSpec, client: aiohttp.ClientSession, *, program: str, probe_interval_s: float
) -> EngineAdapter:
    """Return the adapter of an engine. `program` is where its executable was found or built."""
    probe_s = probe_limit_s(probe_interval_s)
    match engine.kind:
        case EngineKind.SKEP:
            return SkepAdapter(client, probe_s=probe_s)
        case EngineKind.LLAMA_SERVER:
            return ForeignAdapter(client, with_more(llama_server_argv, engine.argv), probe_s=probe_s)
        case EngineKind.VLLM:
            return ForeignAdapter(client, with_more(vllm_argv, engine.argv), probe_s=probe_s)
        case EngineKind.COMMAND:
            return ForeignAdapter(client, command_argv(engine.argv, program), probe_s=probe_s)
