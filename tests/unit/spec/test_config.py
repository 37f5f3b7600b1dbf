import pytest

from skep.errors import InvalidConfig
from skep.spec.config import Layer, environment_layer, read_layer, resolve

WHOLE = """
[queen]
bind = "127.0.0.1:1"

[hive_daemon]
node_id = "gpu-1"

[provisioning]
allow = ["download"]

[[model]]
name = "tiny"
ref = "/m/tiny.gguf"
aliases = ["small"]

[[pool]]
id = "pool-0"
model = "tiny"
devices = "0,1"
split = [0.6, 0.4]

[[pool]]
id = "pool-1"
model = "tiny"
ttl_s = 60.0

[[engine]]
id = "mine"
kind = "command"
argv = ["serve", "{port}"]

[[fake_device]]
index = 0
memory_total_bytes = 1000
"""


def test_a_whole_file_is_read() -> None:
    config = resolve([read_layer(WHOLE, source="skep.toml")]).config
    assert [pool.id for pool in config.pool] == ["pool-0", "pool-1"]
    assert config.pool[0].split == (0.6, 0.4)
    assert config.model[0].spec().ref.path == "/m/tiny.gguf"
    assert config.queen.bind == "127.0.0.1:1"
    assert config.hive_daemon.bind == "127.0.0.1:9200"


@pytest.mark.parametrize(
    ("wrong", "line", "field"),
    [
        ("ttl_s = 60.0", 25, "pool[1].ttl"),
        ('node_id = "gpu-1"', 6, "hive_daemon.ttl"),
        ("index = 0", 33, "fake_device[0].ttl"),
        ("[queen]", 2, "ttl"),
    ],
)
def test_an_unknown_field_is_refused_with_its_line(wrong: str, line: int, field: str) -> None:
    text = WHOLE.replace(wrong, "ttl = 1" if "=" in wrong else "[ttl]")
    with pytest.raises(InvalidConfig, match=rf"skep\.toml:{line}: .*is not a field") as caught:
        read_layer(text, source="skep.toml")
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ttl_s = 60.0", 'ttl_s = "x"', r"skep\.toml:25: pool\[1\]\.ttl_s"),
        ("ttl_s = 60.0", "ttl_s = -1.0", r"skep\.toml:25"),
        ("split = [0.6, 0.4]", "split = [0.6, 2.0]", r"skep\.toml:20: pool\[0\]\.split"),
        ('id = "pool-1"', 'id = "pool-0"', "pool-0 is declared twice"),
        ('id = "pool-1"', 'id = "../x"', r"skep\.toml:23: pool\[1\]\.id"),
        ('aliases = ["small"]', 'aliases = ["tiny"]', "tiny is declared twice"),
        ('ref = "/m/tiny.gguf"', 'ref = "https://x/y"', "checksum"),
        ("[queen]", "[queen", r"skep\.toml:2: "),
        ('argv = ["serve", "{port}"]', "", "needs argv"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(old: str, new: str, expected: str) -> None:
    with pytest.raises(InvalidConfig, match=expected):
        read_layer(WHOLE.replace(old, new), source="skep.toml")


def test_stronger_layers_win_field_by_field_and_say_where_from() -> None:
    user = read_layer(
        '[hive_daemon]\nbind = "a:1"\nnode_id = "u"\n[[pool]]\nid="p"\nmodel="m"', source="user"
    )
    here = read_layer('[hive_daemon]\nnode_id = "h"', source="here")
    environment = environment_layer(
        {"SKEP_HIVE_DAEMON_PROBE_INTERVAL_S": "2.5", "SKEP_PROVISIONING_ALLOW": "build, package"}
    )
    flags = Layer("flags", {"hive_daemon": {"bind": "b:2"}})
    config, origins = resolve([user, here, environment, flags])
    assert config.hive_daemon.bind == "b:2"
    assert config.hive_daemon.node_id == "h"
    assert config.hive_daemon.probe_interval_s == 2.5
    assert config.provisioning.allow == ("build", "package")
    assert config.pool[0].id == "p"
    assert origins["hive_daemon.bind"] == "flags"
    assert origins["hive_daemon.node_id"] == "here"
    assert origins["pool"] == "user"
    assert "hive_daemon.queen" not in origins


def test_a_wrong_environment_variable_is_told() -> None:
    layers = [environment_layer({"SKEP_HIVE_DAEMON_PROBE_INTERVAL_S": "soon"})]
    with pytest.raises(InvalidConfig, match="probe_interval_s"):
        resolve(layers)
