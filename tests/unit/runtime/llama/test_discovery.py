import os
from pathlib import Path

import pytest

from skep.errors.runtime import LibraryUnavailable
from skep.runtime.llama import discovery
from skep.runtime.llama.discovery import Provider, best, candidates


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.importlib.util, "find_spec", lambda _name: None)


def library(folder: Path, sub: str = "") -> Path:
    path = folder / sub / "libllama.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


class Spec:
    def __init__(self, *folders: Path) -> None:
        self.submodule_search_locations = [str(folder) for folder in folders]


def test_the_variable_may_name_a_file_or_a_build_folder(tmp_path: Path, no_packages: None) -> None:
    path = library(tmp_path, "build/bin")
    for value in (path, tmp_path):
        found = candidates(environ={"SKEP_LLAMA_LIBRARY": str(value)})
        assert [(c.path, c.provider) for c in found] == [(path, Provider.BUILT)]


def test_a_variable_that_names_nothing_is_an_error_and_no_fall_back(tmp_path: Path) -> None:
    with pytest.raises(LibraryUnavailable, match="SKEP_LLAMA_LIBRARY"):
        candidates(environ={"SKEP_LLAMA_LIBRARY": str(tmp_path / "absent")})


def test_order_is_variable_then_native_then_wheel_then_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, built = library(tmp_path / "named"), library(tmp_path / "built", "lib")
    native = library(tmp_path / "llama_cpp", "lib")
    wheel = tmp_path / "xllamacpp" / "xllamacpp.abi3.so"
    wheel.parent.mkdir()
    wheel.touch()
    specs = {"llama_cpp": Spec(tmp_path / "llama_cpp"), "xllamacpp": Spec(tmp_path / "xllamacpp")}
    monkeypatch.setattr(discovery.importlib.util, "find_spec", specs.get)
    found = candidates(
        environ={"SKEP_LLAMA_LIBRARY": str(named)}, build_folders=[tmp_path / "built", tmp_path / "no"]
    )
    assert [candidate.path for candidate in found] == [named, native, wheel, built]
    assert [c.provider for c in found] == [Provider.BUILT, Provider.NATIVE, Provider.WHEEL, Provider.BUILT]


def test_the_same_library_is_listed_once(tmp_path: Path, no_packages: None) -> None:
    path = library(tmp_path)
    link = tmp_path / "link" / "libllama.so"
    link.parent.mkdir()
    link.symlink_to(path)
    found = candidates(environ={"SKEP_LLAMA_LIBRARY": str(path)}, build_folders=[tmp_path / "link", tmp_path])
    assert [candidate.path for candidate in found] == [path]


def test_what_the_hive_built_is_found_newest_first(tmp_path: Path, no_packages: None) -> None:
    engines = tmp_path / "data" / "engines" / "llama-server"
    old, new = library(engines / "b1", "build/bin"), library(engines / "b2", "build/bin")
    os.utime(engines / "b1", (1, 1))
    (engines / ".staging").mkdir()
    found = candidates(environ={"SKEP_HOME": str(tmp_path)})
    assert [candidate.path for candidate in found] == [new, old]
    assert candidates(environ={}) == []


def test_nothing_found_says_what_to_install(no_packages: None) -> None:
    assert candidates(environ={}) == []
    with pytest.raises(LibraryUnavailable, match="install xllamacpp"):
        best(environ={})


def test_looking_imports_neither_package() -> None:
    import sys

    candidates(environ={})
    assert "xllamacpp" not in sys.modules
    assert "llama_cpp" not in sys.modules
