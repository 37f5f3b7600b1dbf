"""The llama backend over real libraries and the tiny models: loading, vocabulary, life cycle, failures."""

import gc
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import (
    Closed,
    DeviceMissing,
    GgufMalformed,
    InsufficientMemory,
    InvalidToken,
    ModelInUse,
    ModelNotFound,
    TensorMissing,
    UnsupportedArchitecture,
)
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend, budget
from skep.runtime.llama.model import LlamaModel
from skep.runtime.models import BROKEN, MICRO, SPM, TINY, TINY_LORA, TINY_Q8

pytestmark = pytest.mark.llama

SMALL = SessionOptions(sequences=1, context=64, batch_rows_max=32, threads=1)


def test_a_model_says_what_it_is(tiny: LlamaModel) -> None:
    info = tiny.info
    assert (info.name, info.architecture, info.quantization, info.tokenizer) == (
        "skep-tiny",
        "llama",
        "F16",
        "gpt2",
    )
    assert (info.vocab_size, info.layers, info.embedding_size) == (768, 5, 128)
    assert info.context_train >= 4096
    assert info.parameters > 1_000_000
    assert 0 < info.size_bytes <= TINY.stat().st_size
    assert info.eos_token in info.end_tokens
    assert not info.add_bos
    assert info.chat_template is not None
    assert "system" in info.chat_template


def test_the_quantised_and_the_other_tokenizer_say_so(backend: LlamaBackend, spm: LlamaModel) -> None:
    assert (spm.info.tokenizer, spm.info.add_bos, spm.info.bos_token) == ("llama", True, 1)
    with backend.load(TINY_Q8, LoadOptions()) as quantised:
        assert quantised.info.quantization == "Q8_0"


def test_progress_rises_to_one(backend: LlamaBackend) -> None:
    seen: list[float] = []
    backend.load(TINY, LoadOptions(), on_progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_what_progress_raises_stops_the_load_and_comes_out(backend: LlamaBackend) -> None:
    class Enough(Exception):
        pass

    def stop(_share: float) -> None:
        raise Enough

    with pytest.raises(Enough):
        backend.load(TINY, LoadOptions(), on_progress=stop)
    backend.load(TINY, LoadOptions()).close()


@pytest.mark.parametrize(
    "options", [LoadOptions(use_mmap=False), LoadOptions(check_tensors=True)], ids=["read", "check"]
)
def test_other_ways_of_loading_work(backend: LlamaBackend, options: LoadOptions) -> None:
    with backend.load(TINY_Q8, options) as model:
        assert model.memory().ram_bytes >= model.info.size_bytes * 0.9
        assert model.memory().device_bytes == 0


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_byte_level_bpe_gives_every_text_back(tiny: LlamaModel, text: str) -> None:
    tokens = tiny.tokenize(text)
    assert b"".join(map(tiny.piece, tokens)).decode() == text


@settings(max_examples=150, deadline=None)
@given(TEXT.filter(lambda text: "▁" not in text))
def test_sentencepiece_gives_every_text_back_after_its_space(spm: LlamaModel, text: str) -> None:
    tokens = spm.tokenize(text, add_special=False)
    assert b"".join(map(spm.piece, tokens)).decode() == (f" {text}" if text else "")


def test_special_tokens_are_text_unless_asked_for(tiny: LlamaModel) -> None:
    text = "<|im_end|>"
    assert len(tiny.tokenize(text)) > 1
    (token,) = tiny.tokenize(text, parse_special=True)
    assert token == tiny.info.eos_token
    assert tiny.piece(token) == b""
    assert tiny.piece(token, special=True) == text.encode()


def test_bos_is_added_where_the_model_wants_it(spm: LlamaModel) -> None:
    assert spm.tokenize("hello")[0] == spm.info.bos_token
    assert spm.tokenize("hello", add_special=False)[0] != spm.info.bos_token


@pytest.mark.parametrize("token", [-1, 768, 2**31, -(2**40)])
def test_a_token_outside_the_vocabulary_is_typed(tiny: LlamaModel, token: int) -> None:
    with pytest.raises(InvalidToken):
        tiny.piece(token)


def test_text_that_is_no_unicode_is_typed_and_nul_is_text(tiny: LlamaModel) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        tiny.tokenize("a\ud800b")
    assert b"".join(map(tiny.piece, tiny.tokenize("a\0b"))) == b"a\0b"


def test_tokenize_works_from_many_threads(tiny: LlamaModel) -> None:
    wanted = tiny.tokenize("what color is the sky?" * 20)
    seen: list[bool] = []

    def work() -> None:
        seen.extend(tiny.tokenize("what color is the sky?" * 20) == wanted for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 200


def test_a_model_in_use_refuses_to_close(backend: LlamaBackend) -> None:
    model = backend.load(MICRO, LoadOptions())
    session = model.open_session(SMALL)
    with pytest.raises(ModelInUse, match="1 open session"):
        model.close()
    assert model.tokenize("still open")
    session.close()
    model.close()


def test_everything_on_a_closed_model_is_typed(backend: LlamaBackend) -> None:
    model = backend.load(MICRO, LoadOptions())
    model.close()
    model.close()
    for use in (
        lambda: model.tokenize("a"),
        lambda: model.piece(1),
        lambda: model.open_session(SMALL),
        model.memory,
    ):
        with pytest.raises(Closed):
            use()


def test_leaks_warn_and_are_freed(backend: LlamaBackend) -> None:
    model = backend.load(MICRO, LoadOptions())
    session = model.open_session(SMALL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        gc.collect()
        model.close()
        model = backend.load(MICRO, LoadOptions())
        del model
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == [
        "a session was never closed",
        "a model was never closed",
    ]


LIBRARY_ERRORS: dict[str, type[SkepError]] = {
    "missing-tensor": TensorMissing,
    "misshapen-tensor": TensorMissing,
    "unknown-architecture": UnsupportedArchitecture,
}


@pytest.mark.parametrize("name", LIBRARY_ERRORS)
def test_what_only_the_library_sees_is_typed_too(backend: LlamaBackend, name: str) -> None:
    with pytest.raises(LIBRARY_ERRORS[name]) as caught:
        backend.load(BROKEN[name], LoadOptions())
    assert str(BROKEN[name]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_found_when_asked(backend: LlamaBackend) -> None:
    with pytest.raises(GgufMalformed):
        backend.load(BROKEN["nan-weights"], LoadOptions(check_tensors=True))


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - LIBRARY_ERRORS.keys() - {"nan-weights"}))
def test_a_broken_file_never_reaches_the_library(backend: LlamaBackend, name: str) -> None:
    mark = backend.library.log.mark()
    with pytest.raises(SkepError):
        backend.load(BROKEN[name], LoadOptions())
    assert backend.library.log.since(mark) == []


def test_a_missing_file_and_a_missing_gpu_are_typed(backend: LlamaBackend, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        backend.load(tmp_path / "absent.gguf", LoadOptions())
    gpus = sum(device.index is not None for device in backend.library_info().devices)
    with pytest.raises(DeviceMissing):
        backend.load(TINY, LoadOptions(devices=(gpus,)))


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(split=(0.5, 0.5)),
        LoadOptions(lora_adapters=((str(TINY_LORA), 1e9),)),
        LoadOptions(lora_adapters=((str(TINY_LORA), float("nan")),)),
    ],
    ids=["split without devices", "huge scale", "scale that is no number"],
)
def test_load_options_without_sense_are_refused(backend: LlamaBackend, options: LoadOptions) -> None:
    with pytest.raises(InvalidInput):
        backend.load(TINY, options)


def test_a_model_larger_than_memory_is_refused_before_it_is_read(
    backend: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "ram_available_bytes", lambda: 1_000_000)
    mark = backend.library.log.mark()
    with pytest.raises(InsufficientMemory):
        backend.load(TINY, LoadOptions())
    assert backend.library.log.since(mark) == []


def test_a_broken_adapter_frees_the_model(backend: LlamaBackend, tmp_path: Path) -> None:
    with pytest.raises(SkepError):
        backend.load(TINY, LoadOptions(lora_adapters=((str(TINY), 1.0),)))
    with pytest.raises(ModelNotFound):
        backend.load(TINY, LoadOptions(lora_adapters=((str(tmp_path / "no.gguf"), 1.0),)))
    with pytest.raises(SkepError):
        backend.load(SPM, LoadOptions(lora_adapters=((str(TINY_LORA), 1.0),)))


CYCLES = """
import sys
from skep.errors import SkepError
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama import LlamaBackend
from skep.runtime.models import BROKEN, TINY
import os, psutil
backend, process = LlamaBackend(), psutil.Process()
def cycle():
    with backend.load(TINY, LoadOptions()) as model:
        with model.open_session(SessionOptions(sequences=2, context=128, threads=1)):
            pass
    for name in ("missing-tensor", "truncated-data", "unknown-architecture", "wrong-magic"):
        try:
            backend.load(BROKEN[name], LoadOptions())
        except SkepError:
            continue
        raise SystemExit(f"{name} loaded")
cycles = int(sys.argv[1])
for _ in range(max(5, cycles // 5)):
    cycle()
rss, descriptors, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
for _ in range(cycles):
    cycle()
print(process.memory_info().rss - rss, process.num_fds() - descriptors, process.num_threads() - threads)
"""


@pytest.mark.parametrize("cycles", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_loads_and_failed_loads_give_memory_descriptors_and_threads_back(cycles: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CYCLES, str(cycles)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    grown_bytes, *grown = map(int, done.stdout.split())
    assert grown == [0, 0]
    assert grown_bytes < 8_000_000
