"""The small parts of a hive: events, settings, the systemd unit."""

import asyncio
from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.errors.hive import UnsafeBind
from skep.hive.events import FOLLOWER_BEHIND_MAX, KEPT_MAX, EventLog
from skep.hive.settings import from_config, read_token, split_address
from skep.hive.unit import make_unit
from skep.policy import restart
from skep.spec.config import read_layer, resolve
from skep.spec.folders import folders


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


def test_when_failed_workers_are_tried_again_is_configured_and_the_defaults_are_the_policies() -> None:
    assert settings("").restart == restart.DEFAULT
    found = settings("[restarts]\nfirst_s = 0.1\nfailures = 3\nopen_s = 20\nstorm_restarts = 7").restart
    assert (found.backoff.first_s, found.backoff.delay_s_min) == (0.1, 0.1)
    assert (found.breaker.failures_max, found.breaker.open_s, found.breaker.stable_s) == (3, 20.0, 60.0)
    assert (found.storm.restarts_max, found.storm.window_s) == (7, 60.0)
    with pytest.raises(InvalidConfig, match=r"x:2: restarts\.failures"):
        settings("[restarts]\nfailures = 0")


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
