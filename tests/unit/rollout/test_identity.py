"""A declared key file is looked at before a host is asked, and what is wrong with it says what to do."""

import subprocess
from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.rollout.identity import usable


def made(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return path


def refusal(path: Path, *, has_agent: bool = False) -> str:
    with pytest.raises(InvalidConfig) as caught:
        usable(path, has_agent=has_agent)
    return str(caught.value)


def test_a_key_without_a_passphrase_is_used(tmp_path: Path) -> None:
    key = made(tmp_path / "id key")
    assert usable(key, has_agent=False) == key


def test_a_key_with_a_passphrase_is_the_agents(tmp_path: Path) -> None:
    key = made(tmp_path / "id", "secret")
    assert usable(key, has_agent=True) == key
    assert refusal(key).endswith(f"no agent runs that could hold it: ssh-add {key}")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = made(tmp_path / "id")
    key.chmod(0o640)
    assert refusal(key).endswith(f"can be read by others: chmod 600 {key}")


def test_what_is_no_key_is_refused_also_where_an_agent_runs(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("is not there")
    assert refusal(tmp_path).endswith("cannot be read: Is a directory")
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage")
    garbage.chmod(0o600)
    assert "is no private key" in refusal(garbage, has_agent=True)
