from pathlib import Path

import pytest

from skep.errors.runtime import InsufficientMemory
from skep.runtime.llama import budget
from skep.runtime.llama.budget import check_ram, ram_available_bytes

MIB = 1024 * 1024


def test_a_cgroup_limit_caps_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(str(100 * MIB))
    (tmp_path / "memory.current").write_text(str(70 * MIB))
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")
    assert ram_available_bytes(cgroup_root=tmp_path) == 50 * MIB


def test_an_unlimited_cgroup_leaves_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "memory.current").write_text("1")
    (tmp_path / "memory.stat").write_text("")
    assert ram_available_bytes(cgroup_root=tmp_path) > 50 * MIB


def test_too_much_is_refused_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "ram_available_bytes", lambda: 10 * MIB)
    check_ram(10 * MIB, what="it")
    with pytest.raises(InsufficientMemory, match="it needs 11 MiB and 10 MiB are free") as caught:
        check_ram(10 * MIB + 1, what="it")
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (10 * MIB + 1, 10 * MIB)
