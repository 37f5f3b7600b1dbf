import msgspec
import pytest

from skep.errors import InvalidInput
from skep.wire import tolerant
from skep.wire.node import Capabilities, DeviceReport, Heartbeat, PoolReport, RegisterRequest, ReplicaReport

REPLICA = ReplicaReport(
    replica_id="r0",
    url="http://127.0.0.1:1",
    instance="n",
    state="ready",
    slots_total=4,
    slots_free=3,
    token="secret",
)
POOL = PoolReport(pool_id="pool-0", model="tiny", state="ready", replicas=(REPLICA,), vram_free_bytes=7)
DEVICE = DeviceReport(
    id="GPU-1", kind="cuda", index=0, name="X", memory_total_bytes=2, memory_free_bytes=1, temperature_c=40.0
)
REGISTER = RegisterRequest(
    node_id="gpu-1",
    address="http://10.0.0.1:9200",
    version="0.1.0",
    capabilities=Capabilities(devices=(DEVICE,), cpu_cores=8, ram_total_bytes=16),
    pools=(POOL,),
)


@pytest.mark.parametrize("message", [REGISTER, Heartbeat(pools=(POOL,), instance="i", sequence=3)])
def test_a_message_survives_the_round_trip(message: msgspec.Struct) -> None:
    decoded = tolerant.decode(msgspec.json.encode(message), type(message))
    assert decoded.message == message
    assert decoded.unknown_fields == 0


def test_unknown_fields_are_ignored_and_counted_at_every_depth() -> None:
    raw = msgspec.to_builtins(Heartbeat(pools=(POOL,)))
    raw["later"] = {"deep": 1}
    raw["pools"][0]["colour"] = "blue"
    raw["pools"][0]["replicas"][0]["mood"] = None
    decoded = tolerant.decode(msgspec.json.encode(raw), Heartbeat)
    assert decoded.message == Heartbeat(pools=(POOL,))
    assert decoded.unknown_fields == 3


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"node_id": "a/b", "address": "x", "version": "1"}', "node_id"),
        (b'{"node_id": "a\\n", "address": "x", "version": "1"}', "node_id"),
        (b'{"node_id": "a", "version": "1"}', "address"),
        (b'{"node_id": "a", "address": "x", "version": "1", "pools": [{"pool_id": "p"}]}', "pools[0]"),
        (b'{"node_id": "a", "address": "x"', "RegisterRequest"),
        (b"\xff\xfe", "RegisterRequest"),
        (b"[]", "object"),
    ],
)
def test_a_wrong_message_is_refused_with_its_path(body: bytes, path: str) -> None:
    with pytest.raises(InvalidInput, match=path.replace("[", r"\[")):
        tolerant.decode(body, RegisterRequest)


def test_a_token_is_never_in_the_repr_of_what_carries_it() -> None:
    assert "secret" not in repr(REPLICA)
    assert "secret" not in repr(POOL)
    assert "secret" not in repr(REGISTER)


def test_loads_outside_their_range_are_refused() -> None:
    raw = msgspec.to_builtins(REPLICA) | {"kv_used": 1.5}
    with pytest.raises(InvalidInput, match="kv_used"):
        tolerant.decode(msgspec.json.encode(raw), ReplicaReport)
