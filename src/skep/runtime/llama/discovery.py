"""Where a llama.cpp library may lie on this machine: what was named, then the pinned packages, then what the hive built.

Neither package is imported: `find_spec` gives their folder (importing llama_cpp costs 0.3 s and hides why a load fails).
See docs/decisions/002-library-providers.md.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from skep.errors import InvalidConfig
from skep.errors.runtime import LibraryUnavailable
from skep.spec.engine import EngineKind
from skep.spec.folders import folders

LIBRARY_VARIABLE: Final = "SKEP_LLAMA_LIBRARY"
LIBRARY_NAMES: Final = ("libllama.so", "libllama.dylib", "llama.dll")
LIBRARY_SUBFOLDERS: Final = ("", "lib", "bin", "build/bin", "build/lib", "lib64")


class Provider(StrEnum):
    """Who made the library."""

    BUILT = "built"  # By the hive, or by whoever set SKEP_LLAMA_LIBRARY.
    NATIVE = "llama-cpp-python"  # skep[native]: compiled for this machine.
    WHEEL = "xllamacpp"  # The default dependency: prebuilt.


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A shared object that may be a llama.cpp library; nothing of it was loaded yet. `version` of its package."""

    path: Path
    provider: Provider
    version: str = ""


def candidates(
    *, environ: Mapping[str, str] | None = None, build_folders: Sequence[Path] | None = None
) -> list[Candidate]:
    """Return what this machine has, best first: SKEP_LLAMA_LIBRARY, the native build, the wheel, `build_folders`.

    `build_folders` are by default those of the llama.cpp engines that the hive built here, newest first. They come
    last: an engine that was built to be served beside ours must not change what ours computes with.
    Raises: LibraryUnavailable when SKEP_LLAMA_LIBRARY is set and names no library.
    """
    environ = os.environ if environ is None else environ
    builds = hive_builds(environ) if build_folders is None else build_folders
    found = [*_from_variable(environ), *_from_packages(), *_from_folders(builds)]
    unique = {candidate.path.resolve(): candidate for candidate in reversed(found)}
    return [candidate for candidate in found if unique[candidate.path.resolve()] is candidate]


def hive_builds(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders of the engines that the hive built from llama.cpp's source, newest first."""
    try:
        root = folders(environ).engines / EngineKind.LLAMA_SERVER
    except InvalidConfig:  # No home at all: then nothing was built there.
        return []
    built = [folder for folder in root.glob("*/") if not folder.name.startswith(".")]
    return sorted(built, key=lambda folder: -folder.stat().st_mtime)


def best(
    *, environ: Mapping[str, str] | None = None, build_folders: Sequence[Path] | None = None
) -> Candidate:
    """Return the first candidate. Raises: LibraryUnavailable, with the next step."""
    found = candidates(environ=environ, build_folders=build_folders)
    if not found:
        raise LibraryUnavailable(
            "no llama.cpp library was found; install xllamacpp or skep[native], "
            f"or set {LIBRARY_VARIABLE} to a libllama.so"
        )
    return found[0]


def _from_variable(environ: Mapping[str, str]) -> Iterator[Candidate]:
    text = environ.get(LIBRARY_VARIABLE, "")
    if not text:
        return
    named = Path(text).expanduser()
    path = named if named.is_file() else _in_folder(named)
    if path is None:
        raise LibraryUnavailable(
            f"{LIBRARY_VARIABLE}={text}: no library there; set it to a libllama.so or to its build folder",
            path=text,
        )
    yield Candidate(path=path, provider=Provider.BUILT)


def _from_folders(folders: Sequence[Path]) -> Iterator[Candidate]:
    for folder in folders:
        path = _in_folder(folder)
        if path is not None:
            yield Candidate(path=path, provider=Provider.BUILT)


def _from_packages() -> Iterator[Candidate]:
    for folder in _package_folders("llama_cpp"):
        path = _in_folder(folder)
        if path is not None:
            yield Candidate(path=path, provider=Provider.NATIVE, version=_version("llama-cpp-python"))
    for folder in _package_folders("xllamacpp"):
        for path in sorted(folder.glob("xllamacpp*.so")):
            yield Candidate(path=path, provider=Provider.WHEEL, version=_version("xllamacpp"))


def _in_folder(folder: Path) -> Path | None:
    places = (folder / sub / name for sub in LIBRARY_SUBFOLDERS for name in LIBRARY_NAMES)
    return next((place for place in places if place.is_file()), None)


def _package_folders(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
