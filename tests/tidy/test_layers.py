"""The layer contracts hold, and break when an import is added the wrong way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed beside this interpreter")
    return subprocess.run(
        [tool, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.gguf"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_layers_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("policy/__init__.py", "import skep.hive"),
        ("hive/__init__.py", "import skep.queen"),
        ("worker/__init__.py", "import skep.testkit"),
        ("spec/__init__.py", "import subprocess"),
        ("policy/__init__.py", "import time"),
        ("newroom/__init__.py", '"""A room that nobody placed."""'),
    ],
    ids=["upwards", "sideways", "product-to-testkit", "io-in-spec", "clock-in-policy", "unplaced-room"],
)
def test_a_wrong_import_breaks_the_contract(copy: Path, file: str, line: str) -> None:
    target = copy / "src/skep" / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a") as text:
        text.write(f"\n{line}\n")

    result = lint(copy)

    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout or "missing" in result.stdout.lower() + result.stderr.lower()
