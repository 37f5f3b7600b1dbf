"""Removal takes what rollout brought, and nothing of the user's."""

import subprocess
from pathlib import Path

import pytest

from skep.rollout import layout
from skep.rollout.manifest import InstalledWorker
from skep.rollout.recipes import BIN_LINK, remove_engine, uninstall


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with two engines that rollout brought, which share a folder, one of its own, and one by hand."""
    home = tmp_path / "a home's"
    for folder in ("llama-cpp/shared", "llama-cpp/alone", "llama-cpp/by-hand"):
        (home / layout.ENGINES / folder).mkdir(parents=True)
    (home / layout.WORKERS).mkdir()
    for slug, folder in (
        ("a+1", "llama-cpp/shared"),
        ("b+1", "llama-cpp/shared"),
        ("c+1", "llama-cpp/alone"),
    ):
        (home / layout.WORKERS / slug).write_text(f"{folder}\n")
    (home / layout.VERSIONS / "v1").mkdir(parents=True)
    (home / layout.BIN).mkdir()
    (home / layout.BIN / "skep").symlink_to(BIN_LINK)
    return home


def run_at(home: Path, script: str) -> None:
    subprocess.run(
        ["sh", "-euc", script], cwd=home, env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, check=True
    )


def engines(home: Path) -> set[str]:
    return {folder.name for folder in (home / layout.ENGINES).glob("*/*")}


def test_an_engine_goes_when_the_last_worker_that_uses_it_does(home: Path) -> None:
    run_at(home, remove_engine(InstalledWorker(type="a", version="1")).script)
    assert engines(home) == {"shared", "alone", "by-hand"}
    run_at(home, remove_engine(InstalledWorker(type="b", version="1")).script)
    assert engines(home) == {"alone", "by-hand"}


def test_an_engine_that_was_brought_by_hand_outlives_the_hive(home: Path) -> None:
    run_at(home, uninstall().script)
    assert engines(home) == {"by-hand"}
    assert not (home / layout.BIN / "skep").is_symlink()
    assert {path.name for path in (home / layout.SHARE).iterdir()} == {"engines"}


def test_nothing_is_left_where_nothing_was_brought_by_hand(home: Path) -> None:
    (home / layout.ENGINES / "llama-cpp/by-hand").rmdir()
    run_at(home, uninstall().script)
    assert list((home / layout.SHARE).iterdir()) == []


def test_a_skep_of_the_users_own_on_the_path_stays(home: Path) -> None:
    (home / layout.BIN / "skep").unlink()
    (home / layout.BIN / "skep").write_text("mine")
    run_at(home, uninstall().script)
    assert (home / layout.BIN / "skep").read_text() == "mine"
