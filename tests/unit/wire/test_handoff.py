import msgspec
import pytest

from skep.errors import InvalidInput
from skep.wire import handoff
from skep.wire.handoff import Handoff, HandoffModel

HANDOFF = Handoff(
    version=1,
    pool_id="pool-0",
    replica_id="r1",
    engine="skep",
    engine_version="0.1.0",
    url="http://127.0.0.1:4000",
    pid=4242,
    pid_started_at=99,
    nonce="n0nce",
    device_mask=("cpu",),
    slots_total=4,
    model=HandoffModel(name="tiny", ref="/m/tiny.gguf", path="/m/tiny.gguf"),
    written_at=1.5,
    boot_id="b",
    token="secret",
)
NAME = "pool-0-r1.json"


def test_a_handoff_survives_the_round_trip() -> None:
    decoded = handoff.decode(handoff.encode(HANDOFF), source=NAME)
    assert decoded.message == HANDOFF
    assert decoded.unknown_fields == 0


def test_fields_of_a_later_version_are_counted() -> None:
    raw = msgspec.to_builtins(HANDOFF) | {"later": 1}
    assert handoff.decode(msgspec.json.encode(raw), source=NAME).unknown_fields == 1


def test_every_cut_of_a_file_is_refused_and_never_half_read() -> None:
    data = handoff.encode(HANDOFF).rstrip()
    for length in range(len(data)):
        with pytest.raises(InvalidInput, match=NAME):
            handoff.decode(data[:length], source=NAME)


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"version": 2}, NAME),
        ({"version": 0}, NAME),
        ({"pid": 1}, NAME),
        ({"pid": -4}, NAME),
        ({"pid": "4"}, NAME),
        ({"slots_total": 0}, NAME),
        ({"pool_id": "../x"}, NAME),
        ({}, "pool-0-r2.json"),
        ({}, "elsewhere.json"),
    ],
)
def test_a_malformed_or_foreign_file_is_refused_with_its_name(changes: dict, source: str) -> None:
    raw = msgspec.to_builtins(HANDOFF) | changes
    with pytest.raises(InvalidInput, match=source):
        handoff.decode(msgspec.json.encode(raw), source=source)


def test_a_file_too_large_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidInput, match="too large"):
        handoff.decode(b" " * (handoff.BYTES_MAX + 1), source=NAME)


def test_an_id_cannot_lead_out_of_the_folder() -> None:
    for pool_id in ("..", "../x", "a/b", "", ".hidden", "a\n", "x" * 65):
        with pytest.raises(InvalidInput):
            handoff.file_name(pool_id, "r0")


def test_the_token_is_not_in_the_repr() -> None:
    assert "secret" not in repr(HANDOFF)
