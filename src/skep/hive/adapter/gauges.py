"""How busy another server is, by the gauges that it exports: vLLM's names, or llama.cpp's."""

import re

from skep.hive.endpoint import Load

_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(?P<value>[-+0-9.eE]+|NaN|[+-]?Inf)")
_RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "llamacpp:requests_deferred")
_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio")
_WORK = (
    "vllm:generation_tokens_total", "vllm:prompt_tokens_total", "llamacpp:tokens_predicted_total",
    "llamacpp:prompt_tokens_total",
)  # fmt: skip


def load_of(text: str, *, slots: int) -> Load | None:
    """Return the load of a server with so many slots; None when the page has none of the gauges that we know."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        if found := _LINE.match(line):
            value = float(found["value"])
            if value == value and abs(value) != float("inf"):  # noqa: PLR0124 - NaN is the one that differs from itself
                values[found["name"]] = values.get(found["name"], 0.0) + value
    running = _sum(values, _RUNNING)
    if running is None:
        return None
    return Load(
        slots_total=slots,
        slots_free=max(slots - int(running), 0),
        queue_depth=int(_sum(values, _WAITING) or 0),
        kv_used=min(max(_sum(values, _CACHE) or 0.0, 0.0), 1.0),
        work_total=int(_sum(values, _WORK) or 0),
    )


def _sum(values: dict[str, float], names: tuple[str, ...]) -> float | None:
    found = [values[name] for name in names if name in values]
    return sum(found) if found else None
