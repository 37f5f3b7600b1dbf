"""The fake's own script: delays, faults, memory, and text that shows a wrong cache."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skep.errors import InvalidInput
from skep.errors.runtime import (
    DecodeAborted,
    DecodeFailed,
    DeviceOutOfMemory,
    GgufTruncated,
    InsufficientMemory,
    InvalidBatch,
    NoCacheSlot,
)
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.fake import FakeBackend, FakeModel, FakeScript
from skep.runtime.fake.script import parse_reference
from skep.runtime.sampling import SamplingParams


def load(reference: str | FakeScript = "fake:x") -> FakeModel:
    if isinstance(reference, FakeScript):
        return FakeBackend(reference).load(Path("fake:x"), LoadOptions())
    return FakeBackend().load(Path(reference), LoadOptions())


def say(model: FakeModel, prompt: str, count: int = 60) -> str:
    session = model.open_session(SessionOptions(sequences=1, context=1024))
    tokens = model.tokenize(prompt, parse_special=True)
    session.decode([Row(token, at, 0, at == len(tokens) - 1) for at, token in enumerate(tokens)])
    sampler, row, out = session.make_sampler(SamplingParams(temperature=0.0)), len(tokens) - 1, []
    for at in range(len(tokens), len(tokens) + count):
        token = session.sample(sampler, row)
        if token in model.info.end_tokens:
            break
        out.append(token)
        session.decode([Row(token, at, 0, wants_logits=True)])
        row = 0
    session.close()
    return b"".join(map(model.piece, out)).decode("utf-8", "replace")


def test_a_reference_carries_the_script() -> None:
    script = parse_reference(
        "fake:sky?text=the%20sky&token_delay_ms=1.5&vocab=300&batch_noise=1&fail_load=gguf_truncated"
    )
    assert script == FakeScript(
        name="sky",
        text="the sky",
        token_delay_ms=1.5,
        vocab=300,
        batch_noise=True,
        fail_load="gguf_truncated",
    )


@pytest.mark.parametrize(
    "reference",
    ["fake:x?nonsense=1", "fake:x?vocab=10", "fake:x?token_delay_ms=-1", "fake:x?token_delay_ms=a", "fake:x?fail_load=no", "fake:x?token_delay_ms=nan"],
)  # fmt: skip
def test_a_script_that_means_nothing_is_refused(reference: str) -> None:
    with pytest.raises(InvalidInput):
        load(reference)


def test_a_file_that_exists_is_a_model_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "some.gguf"
    path.write_bytes(b"")
    assert load(str(path)).info.name == "some"


def test_the_scripted_text_is_said_and_ended() -> None:
    assert say(load("fake:x?text=the%20sky%20is%20blue."), "?") == "the sky is blue."


def test_the_scripted_text_goes_on_from_where_the_prompt_left_it() -> None:
    assert say(load("fake:x?text=abcabd"), "abca") == "bd"


def test_without_a_text_a_chat_turn_ends_after_its_tokens() -> None:
    prompt = "<|im_start|>assistant\n"
    assert len(say(load("fake:x?turn_tokens=30"), prompt).encode()) == 30 - len("assistant\n")
    assert len(say(load("fake:x?turn_tokens=30"), "no turn", 200).encode()) == 200


@pytest.mark.parametrize("vocab", [260, 275, 400])
def test_babble_is_text_and_depends_on_every_token_before_it(vocab: int) -> None:
    model = load(f"fake:x?vocab={vocab}")
    one, other = say(model, "a bee and a hive"), say(model, "b bee and a hive")
    assert one != other
    assert "\ufffd" not in one[:-1]
    assert one == say(load(f"fake:y?vocab={vocab}"), "a bee and a hive")


def test_a_load_takes_its_time_and_can_fail_half_way() -> None:
    seen: list[float] = []
    with pytest.raises(GgufTruncated):
        FakeBackend(FakeScript(fail_load="gguf_truncated")).load(
            Path("x"), LoadOptions(), on_progress=seen.append
        )
    assert seen == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.raises(InsufficientMemory):
        load("fake:x?fail_load=insufficient_memory")
    started = time.monotonic()
    load("fake:x?load_delay_ms=30")
    assert time.monotonic() - started >= 0.03


@pytest.mark.parametrize(
    ("devices", "gpu_layers", "ram", "device"),
    [((), -1, 1000, 0), ((0,), -1, 0, 1000), ((0,), 1, 750, 250), ((0,), 9, 0, 1000), ((0,), 0, 1000, 0)],
)
def test_weights_lie_where_their_layers_are(
    devices: tuple[int, ...], gpu_layers: int, ram: int, device: int
) -> None:
    options = LoadOptions(devices=devices, gpu_layers=gpu_layers)
    model = FakeBackend(FakeScript(memory_bytes=1000, layers=4)).load(Path("x"), options)
    assert (model.memory().ram_bytes, model.memory().device_bytes) == (ram, device)


def test_what_does_not_fit_on_the_device_is_typed_and_harms_nothing_that_is_open() -> None:
    backend = FakeBackend(FakeScript(memory_bytes=1000, device_memory_bytes=200_000))
    with pytest.raises(InsufficientMemory):
        FakeBackend(FakeScript(memory_bytes=1000, device_memory_bytes=999)).load(
            Path("x"), LoadOptions(devices=(0,))
        )
    model = backend.load(Path("x"), LoadOptions(devices=(0,)))
    with closing(model.open_session(SessionOptions(sequences=1, context=64))) as session:
        before = session.memory().device_bytes
        with pytest.raises(DeviceOutOfMemory):
            model.open_session(SessionOptions(sequences=64, context=4096))
        decode_one(session, 0)
        assert session.memory().device_bytes > before
        assert session.memory().ram_bytes == 0
    model.open_session(SessionOptions(sequences=64, context=4096, offload_cache=False)).close()
    model.close()


def decode_one(session: Any, at: int) -> None:
    session.decode([Row(1, at, 0, wants_logits=True)])


def test_a_scripted_failure_spoils_the_session_and_not_the_model() -> None:
    model = load("fake:x?fail_decode_after=2")
    session = model.open_session(SessionOptions())
    decode_one(session, 0)
    for _ in range(2):
        with pytest.raises(DecodeFailed):
            decode_one(session, 1)
    session.close()
    again = model.open_session(SessionOptions())
    decode_one(again, 0)
    again.close()
    model.close()


def test_another_failure_can_be_named_and_repeated() -> None:
    model = load("fake:x?fail_decode_after=1&fail_decode=device_out_of_memory&fail_decode_times=2")
    session = model.open_session(SessionOptions())
    for _ in range(2):
        with pytest.raises(DeviceOutOfMemory):
            decode_one(session, 0)
    decode_one(session, 0)
    session.close()


def test_a_scripted_abort_ends_the_process_as_an_assert_of_the_library_would() -> None:
    code = (
        "from pathlib import Path; from skep.runtime.fake import FakeBackend; "
        "from skep.runtime.backend import LoadOptions, Row, SessionOptions; "
        "s = FakeBackend().load(Path('fake:x?abort_after=2'), LoadOptions()).open_session(SessionOptions()); "
        "s.decode([Row(1, 0, 0, True)]); print('one', flush=True); s.decode([Row(1, 1, 0, True)]); print('two')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout == "one\n"
    assert child.returncode == -signal.SIGABRT


def test_a_hanging_decode_comes_back_when_it_is_interrupted() -> None:
    session = load("fake:x?hang_after=1").open_session(SessionOptions())
    threading.Timer(0.05, session.interrupt).start()
    with pytest.raises(DecodeAborted):
        decode_one(session, 0)
    session.close()


def test_a_delay_ends_early_when_it_is_interrupted_and_keeps_half_of_the_rows() -> None:
    session = load("fake:x?row_delay_us=1e6").open_session(SessionOptions())
    threading.Timer(0.05, session.interrupt).start()
    started = time.monotonic()
    with pytest.raises(DecodeAborted):
        session.decode([Row(1, at, 0, at == 9) for at in range(10)])
    assert time.monotonic() - started < 5
    assert session.sequence_position_max(0) == 4
    session.close()


def test_a_short_cache_is_counted_and_shared_cells_only_once() -> None:
    model = load("fake:x?cache_cells=10")
    session = model.open_session(SessionOptions(unified_cache=True))
    session.decode([Row(1, at, 0, at == 7) for at in range(8)])
    session.sequence_copy(0, 1, 0, 6)
    with pytest.raises(NoCacheSlot):
        session.decode([Row(1, at, 1, at == 8) for at in range(6, 9)])
    session.decode([Row(1, at, 1, at == 7) for at in range(6, 8)])
    session.sequence_remove(0, 0, -1)
    session.decode([Row(1, at, 1, at == 9) for at in range(8, 10)])
    with pytest.raises(NoCacheSlot):
        decode_one(session, 0)
    session.close()


def test_a_sequence_cannot_begin_in_the_middle() -> None:
    session = load().open_session(SessionOptions())
    with pytest.raises(InvalidBatch):
        decode_one(session, 1)
    session.close()


def test_batch_noise_is_in_the_low_bits_only() -> None:
    model = load("fake:x?batch_noise=1")

    def last(chunks: list[int]) -> np.ndarray:
        session, at = model.open_session(SessionOptions()), 0
        for size in chunks:
            session.decode([Row(65, at + index, 0, index == size - 1) for index in range(size)])
            at += size
        found = session.logits(size - 1).copy()
        session.close()
        return found

    whole, chunked = last([8]), last([4, 4])
    assert not np.array_equal(whole, chunked)
    np.testing.assert_allclose(whole, chunked, atol=0.1)
    np.testing.assert_array_equal(chunked, last([4, 4]))
