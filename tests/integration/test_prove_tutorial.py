"""`docs/write-a-feature.md`, as it stands, in a folder outside this project."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "write-a-feature.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return _BLOCK.findall(PAGE.read_text())


@pytest.mark.timeout(300)
def test_the_tutorial_runs_as_written(tmp_path) -> None:
    commands = []
    for kind, text in blocks():
        if text.startswith("# file: "):
            name, _, body = text.removeprefix("# file: ").partition("\n")
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
        elif kind == "shell":
            commands += text.splitlines()
    assert len(commands) == 4
    for command in commands:
        argv = [sys.executable, "-m", "skep.cli.main", *shlex.split(command)[1:]]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert len(list((tmp_path / ".proof_bundle" / "bdd").iterdir())) == 2
