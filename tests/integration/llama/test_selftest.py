"""The self-test, the probe over real shared objects, and what becomes of libraries that are none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skep.errors.runtime import AbiMismatch, LibraryUnavailable
from skep.runtime.llama import selftest
from skep.runtime.llama.backend import LlamaBackend
from skep.runtime.llama.discovery import Candidate, Provider, candidates
from skep.runtime.llama.library import Library, open_library
from skep.runtime.llama.selftest import describe, report, self_test

pytestmark = pytest.mark.llama

NOT_LLAMA = Path(np._core._multiarray_umath.__file__)


def test_every_library_that_is_found_passes() -> None:
    results = self_test()
    assert len(results) == len(candidates()) >= 1
    for result in results:
        assert result.is_ok, report(result)
        assert result.info is not None
        assert result.info.context_params_bytes in {160, 168}
        assert {check.name for check in result.checks} >= {"tiny-f16: golden answers", "tiny-q8_0: interrupt"}
        assert report(result).startswith("ok")


def test_a_description_needs_no_model() -> None:
    (first, *_) = describe()
    assert first.checks == ()
    assert first.info is not None
    assert first.info.system
    assert any(device.index is None for device in first.info.devices)


def test_a_file_that_is_no_library_is_a_result(tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    path.write_bytes(b"not an ELF file")
    (result,) = self_test([Candidate(path=path, provider=Provider.BUILT)])
    assert not result.is_ok
    assert result.error.startswith("library_unavailable")
    with pytest.raises(LibraryUnavailable, match=r"libllama\.so"):
        open_library(Candidate(path=path, provider=Provider.BUILT))


def test_a_library_that_is_not_llama_is_refused_by_the_probe() -> None:
    candidate = Candidate(path=NOT_LLAMA, provider=Provider.BUILT)
    with pytest.raises(AbiMismatch, match="does not export"):
        Library(candidate)
    (result,) = self_test([candidate])
    assert result.error.startswith("abi_mismatch")
    assert report(result).startswith("FAILED")


def test_a_child_that_crashes_or_hangs_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    (candidate, *_) = candidates()
    (hung,) = self_test([candidate], timeout_s=0.001)
    assert hung.error == "no answer within 0.001 s"

    def crash(_argv: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return real_run([sys.executable, "-c", code], **options)

    real_run = subprocess.run
    monkeypatch.setattr(selftest.subprocess, "run", crash)
    (crashed,) = self_test([candidate])
    assert "SIGKILL" in crashed.error


def test_a_library_is_loaded_once() -> None:
    assert LlamaBackend().library is LlamaBackend().library
    assert LlamaBackend().name == "llama"


def test_the_variable_chooses_for_a_process_and_errs_loudly() -> None:
    code = "from skep.runtime.llama import LlamaBackend; print(LlamaBackend().library_info().path)"

    def run(value: str) -> subprocess.CompletedProcess[str]:
        env = {"SKEP_LLAMA_LIBRARY": value, "PATH": ""}
        return subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )

    (*_, last) = candidates()
    assert run(str(last.path)).stdout.strip() == str(last.path)
    failed = run("/nowhere")
    assert failed.returncode
    assert "SKEP_LLAMA_LIBRARY=/nowhere" in failed.stderr
