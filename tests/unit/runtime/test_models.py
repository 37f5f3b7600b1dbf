import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skep.errors import InternalFault
from skep.runtime import gguf, models
from skep.runtime.models import BROKEN, FOLDER, PINS, verify

MAKE = Path(__file__).parents[3] / "scripts" / "models" / "make.py"
TOTAL_BYTES_MAX = 5_000_000


def test_every_file_is_the_pinned_one() -> None:
    verify()
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.gguf")} == PINS.keys()


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.gguf")) < TOTAL_BYTES_MAX


def test_the_broken_ones_are_there_by_name() -> None:
    assert {"wrong-magic", "truncated-data", "missing-tensor", "lying-key-count"} <= BROKEN.keys()
    assert all(path.is_file() for path in BROKEN.values())


def test_a_changed_or_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    (tmp_path / "spm-f16.gguf").write_bytes(b"other")
    with pytest.raises(InternalFault, match="reinstall") as caught:
        verify(["spm-f16.gguf", "tiny-f16.gguf"])
    assert caught.value.files == ["spm-f16.gguf", "tiny-f16.gguf"]


@pytest.mark.skipif(not MAKE.is_file(), reason="the scripts are not beside this installation")
def test_corpus_vocabulary_and_headers_are_rebuilt_exactly() -> None:
    pytest.importorskip("gguf")
    done = subprocess.run([sys.executable, MAKE, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("same") == len(PINS)


def trained(path: Path, *arguments: str) -> str:
    pytest.importorskip("torch")
    pytest.importorskip("xllamacpp")
    argv = [sys.executable, MAKE, "--train", path, *arguments]
    own = os.environ | {"TMPDIR": str(path.parent)}  # torch leaves a folder of compiled code there.
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=own)
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_steps_of_training_learn_and_give_a_file_of_the_same_shape(tmp_path: Path) -> None:
    said = trained(tmp_path / "tiny.gguf", "--steps", "30")
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", said)]
    assert losses[-1] < losses[0] - 1.0
    new, ours = gguf.read_header(tmp_path / "tiny.gguf"), gguf.read_header(models.TINY)
    assert new == ours


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_retraining_gives_a_model_that_is_exactly_right(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    trained(path)
    measure = MAKE.with_name("measure.py")
    done = subprocess.run([sys.executable, measure, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
