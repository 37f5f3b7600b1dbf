"""The GGUF reader: sound headers as data, every kind of damage as a typed error, and never anything else."""

import contextlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skep.errors import SkepError
from skep.errors.runtime import (
    GgufMalformed,
    GgufTruncated,
    ModelLoadFailed,
    ModelNotFound,
    NotAGguf,
    TensorMissing,
)
from skep.runtime.gguf import parse, preflight, preflight_adapter, read_header, split_parts, weights_bytes
from skep.runtime.gguf.check import check_model
from skep.runtime.gguf.parse import Incomplete
from skep.runtime.models import BROKEN, MICRO, SPM, TINY, TINY_LORA, TINY_Q8

U8, I8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 1, 4, 5, 6, 7, 8, 9, 10
FORMATS = {U8: "<B", I8: "<b", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}
F16_TENSOR = 1


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: Any) -> bytes:
    if kind == STRING:
        return text(content)
    if kind == ARRAY:
        item, items = content
        return struct.pack("<IQ", item, len(items)) + b"".join(value(item, one) for one in items)
    return struct.pack(FORMATS[kind], content)


BASE: dict[str, tuple[int, Any]] = {
    "general.architecture": (STRING, "llama"),
    "llama.block_count": (U32, 1),
    "llama.context_length": (U32, 64),
    "llama.embedding_length": (U32, 8),
    "llama.attention.head_count": (U32, 2),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "b", "c"])),
    "tokenizer.ggml.scores": (ARRAY, (F32, [0.0, 1.0, 2.0])),
}
TENSORS: list[tuple[str, tuple[int, ...], int, int]] = [
    ("token_embd.weight", (8, 3), F16_TENSOR, 0),
    ("blk.0.attn_q.weight", (8, 8), F16_TENSOR, 64),
]


def gguf(
    changes: dict[str, tuple[int, Any] | None] | None = None,
    tensors: list[tuple[str, tuple[int, ...], int, int]] | None = None,
    *,
    version: int = 3,
    data_bytes: int = 256,
) -> bytes:
    """Return a file with BASE's metadata; a change of None drops a key."""
    metadata = {key: pair for key, pair in {**BASE, **(changes or {})}.items() if pair is not None}
    tensors = TENSORS if tensors is None else tensors
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, (kind, content) in metadata.items():
        out += text(key) + struct.pack("<I", kind) + value(kind, content)
    for name, shape, kind, offset in tensors:
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return out + b"\0" * (-len(out) % 32) + b"\0" * data_bytes


def header(*arguments: Any, **options: Any):
    data = gguf(*arguments, **options)
    return parse(data, file_bytes=len(data))


def test_a_header_is_read_as_data() -> None:
    found = header()
    assert (found.version, found.architecture, found.alignment) == (3, "llama", 32)
    assert found.metadata["llama.context_length"] == 64
    assert [tensor.name for tensor in found.tensors] == ["token_embd.weight", "blk.0.attn_q.weight"]
    assert found.tensors[0].size_bytes == 48
    assert found.weights_bytes == 48 + 128
    assert found.data_offset % 32 == 0
    check_model(found)


def test_memory_terms_count_heads_of_keys_and_values() -> None:
    terms = header({"llama.attention.head_count_kv": (U32, 1), "llama.block_count": (U32, 4)}).memory_terms()
    assert (terms.layers, terms.heads, terms.kv_heads, terms.head_size) == (4, 2, 1, 4)
    assert terms.cache_elements_k == terms.cache_elements_v == 16
    assert terms.cache_bytes(100) == 100 * 32 * 2
    assert terms.cache_bytes(100, type_k="q8_0", type_v="f32") == round(100 * (16 * 34 / 32 + 16 * 4))


def test_memory_terms_follow_a_head_count_for_each_layer() -> None:
    changes = {
        "llama.block_count": (U32, 3),
        "llama.attention.head_count_kv": (ARRAY, (I32, [2, 0, 1])),
        "llama.attention.key_length": (U32, 16),
        "llama.attention.value_length": (U32, 8),
    }
    terms = header(changes).memory_terms()
    assert (terms.cache_elements_k, terms.cache_elements_v, terms.kv_heads) == (48, 24, 2)


def test_long_arrays_are_counted_and_not_kept() -> None:
    found = header({"tokenizer.ggml.merges": (ARRAY, (STRING, ["a b"] * 2000)), "x": (ARRAY, (I32, [7, 8]))})
    assert found.metadata["tokenizer.ggml.merges"].count == 2000
    assert found.metadata["tokenizer.ggml.merges"].items == ()
    assert found.metadata["x"].items == (7, 8)


def test_a_short_prefix_asks_for_more_and_a_short_file_is_truncated() -> None:
    data = gguf()
    with pytest.raises(Incomplete):
        parse(data[:100], file_bytes=len(data))
    with pytest.raises(GgufTruncated):
        parse(data[:100], file_bytes=100)


@pytest.mark.parametrize("length", range(24))
def test_a_file_cut_anywhere_in_its_first_bytes_is_typed(length: int) -> None:
    with pytest.raises((NotAGguf, GgufTruncated)):
        parse(gguf()[:length], file_bytes=length)


def test_a_big_endian_file_is_told_apart_from_an_unknown_version() -> None:
    with pytest.raises(NotAGguf, match="big-endian"):
        parse(b"GGUF" + struct.pack(">I", 3) + bytes(100), file_bytes=108)
    with pytest.raises(NotAGguf, match="version 99"):
        header(version=99)


MALFORMED: dict[str, Callable[[], object]] = {
    "text twice in the vocabulary": lambda: header(
        {"tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "b", "a"]))}
    ),
    "the same text for C": lambda: header(
        {"tokenizer.ggml.tokens": (ARRAY, (STRING, ["a\0x", "b", "a\0y"]))}
    ),
    "a name that the library gives": lambda: header(
        {"tokenizer.ggml.tokens": (ARRAY, (STRING, ["", "[EMPTY_0]"]))}
    ),
    "an empty key": lambda: header({"": (U32, 1)}),
    "an array of arrays": lambda: header({"x": (ARRAY, (ARRAY, [(U32, [1])]))}),
    "an alignment that is no power of two": lambda: header({"general.alignment": (U32, 24)}),
    "an alignment of zero": lambda: header({"general.alignment": (U32, 0)}),
    "a tensor twice": lambda: header(None, [TENSORS[0], TENSORS[0]]),
    "a tensor of no dimensions": lambda: header(None, [("t", (), 0, 0)]),
    "a tensor of five dimensions": lambda: header(None, [("t", (1, 1, 1, 1, 1), 0, 0)]),
    "an empty tensor": lambda: header(None, [("t", (0, 4), 0, 0)]),
    "a tensor beyond counting": lambda: header(None, [("t", (2**40, 2**40), 0, 0)]),
    "rows that are no whole blocks": lambda: header(None, [("t", (33, 2), 8, 0)]),
    "a tensor's name too long": lambda: header(None, [("t" * 64, (8,), 0, 0)]),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_what_contradicts_the_format_is_malformed(make: Callable[[], object]) -> None:
    with pytest.raises(GgufMalformed):
        make()


def test_several_empty_tokens_are_fine() -> None:
    check_model(header({"tokenizer.ggml.tokens": (ARRAY, (STRING, ["", "", "a"]))}))


@pytest.mark.parametrize(
    "changes",
    [
        {"general.architecture": None},
        {"general.architecture": (U32, 7)},
        {"llama.block_count": None},
        {"llama.block_count": (U32, 0)},
        {"llama.block_count": (U32, 513)},
        {"llama.block_count": (F32, 2.0)},
        {"llama.block_count": (STRING, "two")},
        {"llama.context_length": (U32, 2_000_000_000)},
        {"llama.embedding_length": (U32, 0)},
        {"llama.attention.layer_norm_rms_epsilon": (F32, -1e-5)},
        {"llama.attention.layer_norm_rms_epsilon": (F32, float("nan"))},
        {"llama.attention.layer_norm_epsilon": (U32, 1)},
        {"llama.expert_count": (U32, 8)},
        {"llama.expert_used_count": (U32, 2)},
        {"llama.expert_count": (U32, 4), "llama.expert_used_count": (U32, 8)},
        {"llama.expert_count": (U32, 2000), "llama.expert_used_count": (U32, 2)},
        {"llama.nextn_predict_layers": (U32, 2)},
        {"llama.rope.scaling.type": (STRING, "spiral")},
        {"tokenizer.ggml.scores": (ARRAY, (F32, [0.0]))},
        {"tokenizer.ggml.token_type": (ARRAY, (I32, [1]))},
        {"llama.pooling_type": (U32, 9)},
        {"tokenizer.ggml.tokens": None},
        {"tokenizer.ggml.token_type": (ARRAY, (I32, [1, 6, 1]))},
        {"tokenizer.ggml.model": (STRING, "llama")},
        {
            "tokenizer.ggml.model": (STRING, "bert"),
            "tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "<0x0A>", "c"])),
            "tokenizer.ggml.token_type": (ARRAY, (I32, [1, 6, 1])),
        },
        {"tokenizer.ggml.tokens": (U32, 3)},
        {"tokenizer.ggml.tokens": (ARRAY, (STRING, []))},
    ],
    ids=str,
)
def test_what_would_abort_or_confuse_the_library_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(GgufMalformed):
        check_model(header(changes))


def test_byte_tokens_are_fine_where_their_text_is_a_byte() -> None:
    changes = {
        "tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "<0x0A>", "c"])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1, 6, 1])),
    }
    found = header(changes)
    assert found.byte_tokens == {1}
    check_model(found)


def test_tensor_data_past_the_end_is_a_truncated_file() -> None:
    with pytest.raises(GgufTruncated, match=r"blk\.0\.attn_q"):
        check_model(header(data_bytes=100))


def test_an_unaligned_tensor_is_malformed() -> None:
    with pytest.raises(GgufMalformed, match="unaligned"):
        check_model(header(None, [TENSORS[0], ("blk.0.attn_q.weight", (8, 8), F16_TENSOR, 65)]))


def test_a_block_without_tensors_and_a_wrong_embedding_are_missing_tensors() -> None:
    with pytest.raises(TensorMissing, match="block 1"):
        check_model(header({"llama.block_count": (U32, 2)}))
    with pytest.raises(TensorMissing, match="token_embd"):
        check_model(header(None, [TENSORS[1]]))
    with pytest.raises(TensorMissing, match=r"not \(8, 3\)"):
        check_model(header(None, [("token_embd.weight", (8, 2), F16_TENSOR, 0), TENSORS[1]]))


def test_a_tensor_type_that_is_newer_than_us_passes() -> None:
    found = header(None, [TENSORS[0], ("blk.0.attn_q.weight", (8, 8), 250, 64)])
    assert found.tensors[1].size_bytes is None
    check_model(found)


@pytest.mark.parametrize("path", [TINY, TINY_Q8, SPM, MICRO], ids=lambda path: path.stem)
def test_the_sound_models_pass(path: Path) -> None:
    found = preflight(path)
    assert found.architecture == "llama"
    assert found.weights_bytes <= path.stat().st_size


BROKEN_ERRORS: dict[str, type[SkepError]] = {
    "duplicate-token": GgufMalformed,
    "empty": NotAGguf,
    "lying-key-count": GgufMalformed,
    "lying-tensor-count": GgufMalformed,
    "missing-embedding": TensorMissing,
    "more-layers-than-tensors": TensorMissing,
    "negative-epsilon": GgufMalformed,
    "too-many-layers": GgufMalformed,
    "truncated-data": GgufTruncated,
    "truncated-header": GgufTruncated,
    "wrong-magic": NotAGguf,
    "wrong-version": NotAGguf,
}
LEFT_TO_THE_LIBRARY = {"missing-tensor", "misshapen-tensor", "nan-weights", "unknown-architecture"}


def test_every_broken_model_is_spoken_for() -> None:
    assert BROKEN_ERRORS.keys() | LEFT_TO_THE_LIBRARY == BROKEN.keys()


@pytest.mark.parametrize("name", BROKEN_ERRORS)
def test_a_broken_model_is_refused_and_named(name: str) -> None:
    with pytest.raises(BROKEN_ERRORS[name]) as caught:
        preflight(BROKEN[name])
    assert str(BROKEN[name]) in str(caught.value)
    assert caught.value.path == str(BROKEN[name])


def test_a_path_that_is_no_file_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(ModelNotFound):
            preflight(path)
    with pytest.raises(SkepError):
        preflight(tmp_path / "zero\0byte")


def test_a_header_longer_than_the_first_read_is_read_on(tmp_path: Path) -> None:
    tokens = [f"token-{number}-{'x' * 90}" for number in range(20_000)]
    changes = {"tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)), "tokenizer.ggml.scores": None}
    path = tmp_path / "long.gguf"
    path.write_bytes(gguf(changes))
    assert read_header(path).metadata["tokenizer.ggml.tokens"].count == 20_000


def test_adapter_and_model_are_not_taken_for_each_other() -> None:
    assert preflight_adapter(TINY_LORA).is_adapter
    with pytest.raises(ModelLoadFailed, match="adapter"):
        preflight(TINY_LORA)
    with pytest.raises(ModelLoadFailed, match="not a LoRA adapter"):
        preflight_adapter(TINY)


def write_split(folder: Path, number: int, *, count: int = 2) -> Path:
    path = folder / f"big-{number:05}-of-{count:05}.gguf"
    path.write_bytes(gguf({"split.count": (U32, 2)}))
    return path


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    first = write_split(tmp_path, 1)
    with pytest.raises(ModelNotFound, match="00002-of-00002"):
        preflight(first)
    second = write_split(tmp_path, 2)
    found = preflight(first)
    assert split_parts(first, found) == [first, second]
    assert weights_bytes(first, found) == 2 * (48 + 128)
    with pytest.raises(ModelLoadFailed, match="load part 1"):
        preflight(second)


def test_a_split_model_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(gguf({"split.count": (U32, 2)}))
    with pytest.raises(GgufMalformed, match="00001-of-00002"):
        preflight(path)


SOUND = MICRO.read_bytes()
SOUND_HEADER_BYTES = read_header(MICRO).data_offset


def check_quickly(data: bytes) -> None:
    """Parse and check; nothing but a typed error may come out, and soon."""
    started = time.process_time()
    with contextlib.suppress(SkepError):
        check_model(parse(data, file_bytes=len(data)))
    assert time.process_time() - started < 2.0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, SOUND_HEADER_BYTES - 1), st.binary(min_size=1, max_size=9)),
        min_size=1,
        max_size=6,
    )
)
def test_a_mutated_header_passes_or_is_typed(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(SOUND)
    for at, patch in edits:
        data[at : at + len(patch)] = patch
    check_quickly(bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_typed(tail: bytes) -> None:
    check_quickly(b"GGUF\x03\0\0\0" + tail)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SOUND) - 1))
def test_a_file_cut_anywhere_is_typed(length: int) -> None:
    with pytest.raises((NotAGguf, GgufTruncated)):
        check_model(parse(SOUND[:length], file_bytes=length))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("blk.0.attn_norm.weight", (8,), 1),
        ("blk.0.attn_norm.weight", (8, 1), 30),
        ("blk.0.attn_q.bias", (8,), 26),
        ("token_types.weight", (8, 2), 1),
        ("blk.0.attn_q.weight", (8, 8), 25),
        ("blk.0.attn_q.weight", (8, 8), 28),
        ("blk.0.attn_q.weight", (32, 8), 9),
    ],
)
def test_a_type_that_no_kernel_computes_with_is_refused(name: str, shape: tuple[int, ...], kind: int) -> None:
    tensors = [TENSORS[0], ("blk.0.other.weight", (8, 8), F16_TENSOR, 64), (name, shape, kind, 192)]
    with pytest.raises(GgufMalformed, match="computes with") as caught:
        check_model(header(tensors=tensors, data_bytes=4096))
    assert caught.value.tensor == name


def test_a_vector_of_f32_and_matrices_of_every_weight_type_are_fine() -> None:
    vectors = [("blk.0.attn_norm.weight", (8,), 0, 0), ("cls.output.weight", (8, 1), 1, 64)]
    check_model(header(tensors=[*vectors, ("token_embd.weight", (8, 3), 30, 128)], data_bytes=4096))
