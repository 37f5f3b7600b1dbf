"""The command lines of other people's servers, and the gauges that they export."""

import msgspec
import pytest

from skep.errors import InvalidInput
from skep.hive.adapter.base import Order
from skep.hive.adapter.foreign import ForeignAdapter, command_argv, llama_server_argv, vllm_argv
from skep.hive.adapter.gauges import load_of
from skep.spec.device import DeviceMask
from skep.spec.pool import PoolSpec

CPU, TWO_GPUS = DeviceMask(("cpu",)), DeviceMask(("GPU-aaaa", "GPU-bbbb"))


def order(mask: DeviceMask = CPU, *, chat_template: str | None = None, **pool) -> Order:
    return Order(
        pool=PoolSpec(id="p", model="m", slots=3, context=100, **pool),
        replica_id="r",
        mask=mask,
        program="/bin/engine",
        model_path="/m.gguf",
        model_name="m",
        nonce="n",
        token="secret",
        host="127.0.0.1",
        port=9,
        chat_template=chat_template,
    )


def value_of(argv, flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_llama_server_on_the_cpu_uses_no_device() -> None:
    argv = llama_server_argv(order())
    assert value_of(argv, "--device") == "none"
    assert value_of(argv, "--ctx-size") == "300", "the context is each slot's own; llama-server divides one"


def test_llama_server_names_its_gpus_so_that_a_build_without_them_cannot_fall_back() -> None:
    argv = llama_server_argv(order(TWO_GPUS, split=(0.6, 0.4)))
    assert value_of(argv, "--device") == "CUDA0,CUDA1"
    assert value_of(argv, "--tensor-split") == "0.6,0.4"


def test_a_configured_chat_template_reaches_every_engine() -> None:
    for argv in (
        llama_server_argv(order(chat_template="{{ x }}")),
        vllm_argv(order(chat_template="{{ x }}")),
    ):
        assert value_of(argv, "--chat-template") == "{{ x }}"


def test_vllm_takes_one_process_group_for_all_of_its_mask() -> None:
    assert value_of(vllm_argv(order(TWO_GPUS)), "--tensor-parallel-size") == "2"
    assert value_of(vllm_argv(order()), "--tensor-parallel-size") == "1"
    with pytest.raises(InvalidInput, match="evenly"):
        vllm_argv(order(TWO_GPUS, split=(0.6, 0.4)))


@pytest.mark.parametrize("argv", [llama_server_argv, vllm_argv, command_argv(["x"], "x")])
def test_what_another_engine_cannot_promise_is_refused(argv) -> None:
    adapter = ForeignAdapter(None, argv)  # type: ignore[arg-type] - nothing is asked of it
    with pytest.raises(InvalidInput, match="deterministic"):
        adapter.launch(order(deterministic=True))


def test_secrets_are_never_on_a_command_line() -> None:
    for argv in (llama_server_argv(order()), vllm_argv(order()), command_argv(["x", "{port}"], "")(order())):
        assert "secret" not in " ".join(argv)


def test_the_mask_is_all_that_another_engine_can_see() -> None:
    adapter = ForeignAdapter(None, llama_server_argv)  # type: ignore[arg-type] - nothing is asked of it
    assert adapter.launch(order(TWO_GPUS)).env["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa,GPU-bbbb"
    assert adapter.launch(order()).env["CUDA_VISIBLE_DEVICES"] == ""


def test_a_command_is_filled_in_and_an_unknown_name_is_refused() -> None:
    argv = command_argv(["x", "--at={host}:{port}", "{model}", "{name}", "{slots}", "{context}"], "/bin/x")
    assert argv(order()) == ["/bin/x", "--at=127.0.0.1:9", "/m.gguf", "m", "3", "100"]
    with pytest.raises(InvalidInput, match="model"):
        command_argv(["x", "{modle}"], "x")(order())


LLAMA = "# HELP x y\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 2\nllamacpp:tokens_predicted_total 7\n"
VLLM = (
    'vllm:num_requests_running{engine="0",model_name="m"} 1.0\nvllm:num_requests_waiting{engine="0",model_name="m"} 2.0\n'
    'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\nvllm:generation_tokens_total{engine="0",model_name="m"} 7.0\n'
)


@pytest.mark.parametrize(("page", "kv_used"), [(LLAMA, 0.0), (VLLM, 0.25)], ids=["llama-server", "vllm"])
def test_gauges_tell_how_busy_it_is(page: str, kv_used: float) -> None:
    load = load_of(page, slots=4)
    assert msgspec.structs.astuple(load)[:5] == (4, 3, 2, kv_used, 7)


@pytest.mark.parametrize("page", ["", "up 1\n", "vllm:num_requests_running NaN\n", "<html>"])
def test_a_page_without_gauges_that_we_know_tells_nothing(page: str) -> None:
    assert load_of(page, slots=4) is None
