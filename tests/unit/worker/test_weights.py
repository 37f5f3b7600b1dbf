import os
from pathlib import Path

import pytest

from skep.worker.weights import CHECK_S, WeightsWatch

BYTES = bytes(range(256)) * 4096


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(BYTES)
    return path


def rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


@pytest.mark.parametrize(
    "data",
    [BYTES[: len(BYTES) // 2], BYTES + b"more", b"x" * len(BYTES)],
    ids=["truncated", "longer", "other content"],
)
def test_a_rewrite_in_place_is_found_once_it_is_looked_for(model: Path, data: bytes) -> None:
    watch = WeightsWatch(model, now_s=0.0)
    rewrite(model, data)
    assert watch.check(CHECK_S / 2) is None
    changed = watch.check(CHECK_S)
    assert changed is not None
    assert changed.path == str(model)
    assert "rename" in str(changed)


def test_another_file_under_the_name_none_at_all_and_a_new_time_are_no_rewrite(model: Path) -> None:
    watch = WeightsWatch(model, now_s=0.0)
    os.utime(model, (1, 1))
    assert watch.check(10.0) is None
    other = model.with_name("other")
    other.write_bytes(b"quite another model")
    other.replace(model)
    assert watch.check(20.0) is None
    model.unlink()
    assert watch.check(30.0) is None


def test_a_model_that_is_no_file_is_not_watched(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        WeightsWatch(tmp_path / "missing", now_s=0.0)


def test_an_empty_file_has_a_digest_too(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert WeightsWatch(path, now_s=0.0).check(10.0) is None
