"""The record of host keys: what is told of a key that is not in it, and of a record that cannot be read."""

from pathlib import Path

import asyncssh
import pytest

from skep.errors import InvalidConfig
from skep.rollout.knownhosts import KnownHosts, known_name


def test_a_new_host_and_a_changed_key_are_told_apart(tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known hosts")
    known.record("h", 2222, asyncssh.generate_private_key("ssh-ed25519"))
    assert known.knows("h", "192.0.2.1", 2222)
    assert not known.knows("h", "192.0.2.1", 22)
    changed = known.refusal(known_name("h", 2222), is_known=True)
    assert "CHANGED" in changed
    assert changed.endswith(f"ssh-keygen -R '[h]:2222' -f '{tmp_path}/known hosts'")
    new = known.refusal(known_name("h", 2222), is_known=False)
    assert "--accept-new" in new
    assert new.endswith("ssh-keyscan -p 2222 h")
    assert known.refusal("h", is_known=False).endswith("ssh-keyscan h")


def test_a_record_that_cannot_be_read_is_no_hosts_trouble(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        KnownHosts(tmp_path).read()


def test_without_a_record_nobody_is_known(tmp_path: Path) -> None:
    assert not KnownHosts(tmp_path / "none").knows("h", "192.0.2.1", 22)
