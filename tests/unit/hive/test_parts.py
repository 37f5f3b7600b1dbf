"""The small parts of a hive: events, settings, the systemd unit, gauges of other servers, argv of other engines."""

import asyncio
from pathlib import Path

import pytest

from skep.errors import InvalidConfig, InvalidInput
from skep.errors.hive import UnsafeBind
from skep.hive.adapter.base import Order
from skep.hive.adapter.foreign import command_argv, llama_server_argv, vllm_argv
from skep.hive.adapter.gauges import load_of
from skep.hive.events import FOLLOWER_BEHIND_MAX, KEPT_MAX, EventLog
from skep.hive.settings import from_config, read_token, split_address
from skep.hive.unit import make_unit
from skep.spec.config import read_layer, resolve
from skep.spec.device import DeviceMask
from skep.spec.folders import folders
from skep.spec.pool import PoolSpec


async def test_events_are_kept_followed_and_resumed() -> None:
    log = EventLog("p", now_s=lambda: 1.0)
    log.add("a")
    log.add("b", x=1)
    seen = []

    async def read() -> None:
        async for one in log.follow(after=1):
            seen.append((one.id, one.kind))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        await asyncio.sleep(0)
        log.add("c")
        await asyncio.sleep(0)
        log.close()
    assert seen == [(2, "b"), (3, "c")]


async def test_the_ring_is_bounded_and_a_slow_follower_is_dropped() -> None:
    log = EventLog("p")
    follower = log.follow()
    log.add("first")
    assert (await anext(follower)).kind == "first"
    for _ in range(FOLLOWER_BEHIND_MAX + KEPT_MAX):
        log.add("more")
    assert len(log.since()) == KEPT_MAX
    count = 0
    async with asyncio.timeout(5):
        async for _ in follower:
            count += 1
    assert count < FOLLOWER_BEHIND_MAX


def settings(text: str, **environment: str):
    return from_config(
        resolve([read_layer(text, source="x")]).config, folders({"HOME": "/h"}), environment=environment
    )


def token_file(tmp_path: Path, text: str = "0123456789abcdef0123", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_open_bind_without_a_token_is_refused(tmp_path: Path) -> None:
    for bind in ("0.0.0.0:9200", "[::]:9200", "10.0.0.1:9200"):
        with pytest.raises(UnsafeBind, match="token"):
            settings(f'[hive_daemon]\nbind = "{bind}"')
    path = token_file(tmp_path)
    found = settings(f'[hive_daemon]\nbind = "0.0.0.0:9200"\ntoken_file = "{path}"')
    assert found.token == "0123456789abcdef0123"
    assert settings('[hive_daemon]\nbind = "127.0.0.1:0"').token is None
    assert settings("", SKEP_HIVE_TOKEN="t").token == "t"


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("short", 0o600, "at least 16"),
        ("two words are long enough", 0o600, "visible"),
        ("0123456789abcdef", 0o644, "chmod 600"),
    ],
)
def test_a_token_file_that_is_not_one_is_refused(text: str, mode: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=says):
        read_token(str(token_file(tmp_path, text, mode)), {})
    with pytest.raises(InvalidConfig, match="cannot read"):
        read_token(str(tmp_path / "none"), {})


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "h:99999", "h:x"])
def test_an_address_is_host_and_port(text: str) -> None:
    with pytest.raises(InvalidConfig, match="host:port"):
        split_address(text)
    assert split_address("[::1]:80") == ("::1", 80)


def test_pools_of_other_nodes_are_not_ours() -> None:
    text = '[hive_daemon]\nnode_id = "a"\n' + "".join(
        f'[[pool]]\nid = "{one}"\nmodel = "m"\n{f"node = {one!r}" if one != "c" else ""}\n' for one in "abc"
    ).replace("'", '"')
    assert [one.id for one in settings(text).pools] == ["a", "c"]


def test_half_of_a_certificate_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="belong together"):
        settings('[hive_daemon]\ntls_cert = "x"')


@pytest.mark.parametrize("is_system", [True, False])
def test_the_unit_leaves_workers_alive_when_the_hive_is_killed(is_system: bool) -> None:
    unit = make_unit(
        program=Path("/opt/my skep/bin/skep"),
        config=Path("/etc/100%.toml"),
        is_system=is_system,
        user_config=Path("/h/.config"),
        user="u",
    )
    assert "KillMode=process\n" in unit.text
    assert 'ExecStart="/opt/my skep/bin/skep" hive --config /etc/100%%.toml\n' in unit.text
    if is_system:
        assert unit.path == Path("/etc/systemd/system/skep-hive.service")
        assert "WantedBy=multi-user.target" in unit.text
    else:
        assert unit.path == Path("/h/.config/systemd/user/skep-hive.service")
        assert unit.commands[0] == ("loginctl", "enable-linger", "u")


VLLM = """# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0"} 2
vllm:kv_cache_usage_perc 0.25
vllm:generation_tokens_total{engine="0"} 1.5e+02
vllm:time_to_first_token_seconds_sum NaN
"""
LLAMA = "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\nllamacpp:tokens_predicted_total 7\n"


def test_the_gauges_of_other_servers_are_read() -> None:
    busy = load_of(VLLM, slots=4)
    assert (busy.slots_free, busy.queue_depth, busy.kv_used, busy.work_total) == (1, 2, 0.25, 150)
    assert not busy.is_idle
    assert load_of(LLAMA, slots=4).is_idle
    assert load_of("up 1\n<html>", slots=4) is None


def order(**changes) -> Order:
    pool = PoolSpec(id="p", model="m", slots=4, context=2048, **changes.pop("pool", {}))
    fields = {
        "pool": pool, "replica_id": "r0", "mask": DeviceMask(("GPU-a", "GPU-b")), "program": "/bin/x", "model_path": "/m.gguf",
        "model_name": "name", "nonce": "n", "token": "secret", "host": "127.0.0.1", "port": 4321,
    }  # fmt: skip
    return Order(**(fields | changes))


def test_a_command_engine_gets_what_it_asks_for() -> None:
    argv = command_argv(["serve", "--at={host}:{port}", "{model}", "{name}", "{{not}}"], "/usr/bin/serve")(
        order()
    )
    assert argv == ["/usr/bin/serve", "--at=127.0.0.1:4321", "/m.gguf", "name", "{{not}}"]
    with pytest.raises(InvalidInput, match="colour"):
        command_argv(["serve", "{colour}"], "")(order())


def test_secrets_are_never_on_a_command_line() -> None:
    for argv in (llama_server_argv(order()), vllm_argv(order()), command_argv(["x", "{port}"], "")(order())):
        assert "secret" not in " ".join(argv)


def test_llama_server_is_told_all_that_a_pool_says() -> None:
    argv = llama_server_argv(order(pool={"split": (0.5, 0.5)}))
    assert argv[argv.index("--ctx-size") + 1] == "8192"
    assert argv[argv.index("--parallel") + 1] == "4"
    assert argv[argv.index("--tensor-split") + 1] == "0.5,0.5"
    assert argv[argv.index("--n-gpu-layers") + 1] == "999"
    cpu = llama_server_argv(order(mask=DeviceMask(("cpu",))))
    assert cpu[cpu.index("--n-gpu-layers") + 1] == "0", (
        "nothing spills over to a device that was not asked for"
    )


def test_vllm_takes_the_whole_mask_and_no_split() -> None:
    argv = vllm_argv(order())
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"
    with pytest.raises(InvalidInput, match="split"):
        vllm_argv(order(pool={"split": (0.5, 0.5)}))
