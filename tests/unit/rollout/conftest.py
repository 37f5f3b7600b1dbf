"""What the tests of scripts for hosts share."""

import shutil
from pathlib import Path

import pytest

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder to stand first on a host's PATH, in which `sh` is one of the shells that hosts have."""
    shell = shutil.which(request.param)
    assert shell
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to(shell)
    return folder
