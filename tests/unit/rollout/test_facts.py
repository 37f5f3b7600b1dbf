"""The probe's answer is believed whole or not at all."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors.rollout import FactsUnreadable
from skep.rollout.facts import parse, probe_script
from skep.rollout.manifest import Manifest, encode

NONCE = "0123456789abcdef"


def probe(home: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", probe_script(NONCE)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    return done.stdout


def test_a_real_probe_of_an_empty_home_is_read(tmp_path: Path) -> None:
    facts = parse(probe(tmp_path), nonce=NONCE, alias="h")
    assert facts.home == str(tmp_path)
    assert facts.current_key == ""
    assert facts.is_writable
    assert not facts.is_serving
    assert {"flock", "setsid", "sha256sum"} <= facts.tools
    assert list(tmp_path.iterdir()) == [], "a probe changes nothing"


def test_an_installed_version_and_the_manifest_are_read(tmp_path: Path) -> None:
    share = tmp_path / ".local/share/skep"
    (share / "versions/a b").mkdir(parents=True)
    (share / "versions/a b/.complete").touch()
    (share / "versions/half").mkdir()
    (share / "current").symlink_to("versions/a b")
    (share / "manifest.json").write_text(encode(Manifest(key="a b")) + "\n")
    facts = parse(probe(tmp_path), nonce=NONCE, alias="h")
    assert facts.versions == {"a b"}
    assert facts.current_key == "a b"
    assert facts.manifest.key == "a b"


@pytest.mark.parametrize("how", ["link", "link to nothing", "file", "folder"])
def test_whatever_is_in_the_place_of_the_command_is_seen(tmp_path: Path, how: str) -> None:
    place = tmp_path / ".local/bin/skep"
    place.parent.mkdir(parents=True)
    assert not parse(probe(tmp_path), nonce=NONCE, alias="h").has_command
    match how:
        case "link":
            place.symlink_to("/bin/sh")
        case "link to nothing":
            place.symlink_to("/opt/nothing")
        case "file":
            place.touch()
        case _:
            place.mkdir()
    facts = parse(probe(tmp_path), nonce=NONCE, alias="h")
    assert facts.has_command
    assert bool(facts.link) is how.startswith("link")


def test_a_current_link_to_a_half_version_is_not_believed(tmp_path: Path) -> None:
    share = tmp_path / ".local/share/skep"
    (share / "versions/half").mkdir(parents=True)
    (share / "current").symlink_to("versions/half")
    assert parse(probe(tmp_path), nonce=NONCE, alias="h").current_key == ""


def test_a_damaged_manifest_is_unknown_and_not_empty(tmp_path: Path) -> None:
    share = tmp_path / ".local/share/skep"
    share.mkdir(parents=True)
    (share / "manifest.json").write_text('{"key": "x", ')
    with pytest.raises(FactsUnreadable):
        parse(probe(tmp_path), nonce=NONCE, alias="h")


@pytest.mark.parametrize(
    "noise", ["Welcome\n", "home\t/evil\n", f"{NONCE[:-1]} begin\n", "\x1b[2J", "\t\t\n"]
)
def test_noise_around_the_answer_changes_nothing(tmp_path: Path, noise: str) -> None:
    answer = probe(tmp_path)
    assert parse(noise + answer + noise, nonce=NONCE, alias="h").home == str(tmp_path)


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_cut_answer_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    answer = ANSWERS.setdefault("one", probe(tmp_path_factory.getbasetemp()))
    with pytest.raises(FactsUnreadable):
        parse(answer[: min(cut, len(answer) - len(f"{NONCE} end\n"))], nonce=NONCE, alias="h")


ANSWERS: dict[str, str] = {}


@given(st.text(max_size=200))
def test_any_answer_is_read_or_refused(text: str) -> None:
    with pytest.raises(FactsUnreadable):
        parse(f"{NONCE} begin\n{text}\n{NONCE} end\n", nonce=NONCE, alias="h")
