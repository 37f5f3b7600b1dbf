"""From what a host says of itself to what pip is asked for: tags, markers, and the command."""

import sys
from pathlib import Path
from typing import Any

import packaging.markers
import packaging.tags
import pytest

from skep.rollout.target import Target, markers, platforms, target_of
from skep.rollout.wheelhouse import download_argv, this_machine

LINUX: dict[str, Any] = {"kernel": "Linux", "machine": "x86_64", "libc": "glibc 2.36", "python": "3.12"}


def target(**facts: str) -> Target:
    return target_of(**{**LINUX, **facts})


@pytest.mark.parametrize(
    ("said", "kind", "version"),
    [
        ("glibc 2.36", "glibc", (2, 36)),
        ("ldd (GNU libc) 2.28", "glibc", (2, 28)),
        ("ldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35", "glibc", (2, 35)),
        ("musl libc (x86_64)", "musl", (1, 2)),
    ],
)
def test_the_c_library_is_read_from_what_the_host_says(
    said: str, kind: str, version: tuple[int, int]
) -> None:
    assert (target(libc=said).libc, target(libc=said).libc_version) == (kind, version)


@pytest.mark.parametrize("said", ["", "sh: 1: ldd: not found", "glibc unknown"])
def test_a_c_library_that_cannot_be_told_is_said(said: str) -> None:
    with pytest.raises(ValueError, match="the C library cannot be told"):
        target(libc=said)


def test_there_are_no_wheels_for_other_systems() -> None:
    with pytest.raises(ValueError, match="no wheels for FreeBSD"):
        target(kernel="FreeBSD", machine="amd64")


def test_every_tag_down_to_the_oldest_fits_and_the_old_aliases_stand_beside_theirs() -> None:
    assert platforms(target(machine="aarch64", libc="glibc 2.19")) == (
        "linux_aarch64",
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )
    tags = platforms(target(libc="glibc 2.36"))
    assert tags[1] == "manylinux_2_36_x86_64"
    assert tags[-2:] == ("manylinux_2_5_x86_64", "manylinux1_x86_64")
    assert "manylinux2010_x86_64" in tags


def test_musl_hosts_and_macs_get_theirs() -> None:
    assert platforms(target(machine="aarch64", libc="musl libc (aarch64)")) == (
        "linux_aarch64",
        "musllinux_1_2_aarch64",
        "musllinux_1_1_aarch64",
        "musllinux_1_0_aarch64",
    )
    assert platforms(target(kernel="Darwin", machine="arm64", libc="")) == ("macosx_11_0_arm64",)


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac's version is not among the facts")
def test_this_machine_takes_what_pip_itself_takes_here() -> None:
    mine = this_machine()
    assert mine is not None
    ours, theirs = platforms(mine), tuple(packaging.tags.platform_tags())
    assert ours == theirs[: len(ours)], "the order too; of an older musl we know no more"


def test_markers_are_all_that_pip_holds_and_tell_the_other_machine() -> None:
    here, there = (
        packaging.markers.default_environment(),
        markers(target(machine="aarch64", python="3.13")),
    )
    assert set(there) == set(here)
    assert (there["platform_machine"], there["python_version"], there["python_full_version"]) == (
        "aarch64",
        "3.13",
        "3.13.0",
    )
    mine = this_machine()
    assert mine is not None
    told = ("os_name", "platform_machine", "platform_system", "python_version", "sys_platform")
    assert [markers(mine)[name] for name in told] == [here[name] for name in told]  # type: ignore[literal-required]


def test_what_is_built_here_serves_the_same_kind_with_the_same_or_a_newer_c_library() -> None:
    mine = target()
    assert mine.serves(target())
    assert mine.serves(target(libc="glibc 2.40"))
    for other in (
        {"libc": "glibc 2.35"},
        {"libc": "musl libc (x86_64)"},
        {"machine": "aarch64"},
        {"python": "3.11"},
        {"kernel": "Darwin"},
    ):
        assert not mine.serves(target(**other)), other


def test_each_kind_has_a_name_of_its_own() -> None:
    kinds = [target(), target(python="3.11"), target(libc="musl libc"), target(kernel="Darwin", libc="")]
    assert [kind.slug for kind in kinds] == [
        "linux-x86_64-glibc2.36-py3.12",
        "linux-x86_64-glibc2.36-py3.11",
        "linux-x86_64-musl1.2-py3.12",
        "darwin-x86_64-py3.12",
    ]
    assert str(kinds[0]) == "Linux x86_64 (glibc 2.36, Python 3.12)"


def test_pip_is_asked_for_wheels_alone_of_the_hosts_interpreter_and_platforms() -> None:
    wanted = target(machine="aarch64", libc="glibc 2.17")
    argv = download_argv(Path("/c/skep-1-py3-none-any.whl"), wanted, Path("/c/house"))
    said = " ".join(argv)
    assert argv[1:3] == ("-m", "skep.rollout.foreign_pip")
    assert (
        "--only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 --abi abi3 --abi none"
        in said
    )
    assert said.endswith(
        "--platform linux_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 -- /c/skep-1-py3-none-any.whl"
    )
    assert "index" not in said, "the index is the one of the user's own configuration"
