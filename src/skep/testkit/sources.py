"""Something to install: small skeps in a repository, with tags, branches and a broken build, that need nothing from anywhere."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from skep.errors.testkit import LabUnavailable

PYPROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# Writes the wheel itself: no package is fetched for the build.
BACKEND = """import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "skep-{version}-{tag}.whl"
    info = "skep-{version}.dist-info"
    with zipfile.ZipFile(f"{{wheel_directory}}/{{name}}", "w") as wheel:
        wheel.writestr("skep_said.py", "def main(): print('skep {version}')\\n")
        wheel.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: skep\\nVersion: {version}\\n{requires}")
        wheel.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        wheel.writestr(f"{{info}}/entry_points.txt", "[console_scripts]\\nskep = skep_said:main\\n")
        wheel.writestr(f"{{info}}/RECORD", "")
    return name
"""
BROKEN = "raise SystemExit('compile error at line 7')\n"
VERSIONS = ("1.0", "2.0")
WHO = {
    "GIT_AUTHOR_NAME": "skep",
    "GIT_AUTHOR_EMAIL": "skep@localhost",
    "GIT_COMMITTER_NAME": "skep",
    "GIT_COMMITTER_EMAIL": "skep@localhost",
}


def make_repository(folder: Path, *, requires: Sequence[str] = (), tag: str = "py3-none-any") -> str:
    """Make a repository with the tags v1.0 and v2.0 and the branch `broken`; return its URL.

    Its wheels need what `requires` names (as `Requires-Dist` does) and carry `tag`. Raises: LabUnavailable.
    """
    needs = "".join(f"Requires-Dist: {one}\\n" for one in requires)
    folder.mkdir(parents=True)
    _git(folder, "init", "-q")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    for version in VERSIONS:
        (folder / "backend.py").write_text(BACKEND.format(version=version, requires=needs, tag=tag))
        _git(folder, "add", ".")
        _git(folder, "commit", "-q", "-m", version)
        _git(folder, "tag", f"v{version}")
    _git(folder, "checkout", "-q", "-b", "broken")
    (folder / "backend.py").write_text(BROKEN)
    _git(folder, "commit", "-q", "-a", "-m", "broken")
    _git(folder, "checkout", "-q", "main")
    return folder.as_uri()


def committed(folder: Path, *, tag: str) -> None:
    """Make a folder that is there a repository with one commit of all of it, and a tag. Raises: LabUnavailable."""
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", tag)
    _git(folder, "tag", tag)


def _git(folder: Path, *argv: str) -> None:
    try:
        subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *argv],
            cwd=folder,
            check=True,
            capture_output=True,
            env={**os.environ, **WHO},
        )
    except FileNotFoundError as error:
        raise LabUnavailable("making a repository needs git (apt-get install git)") from error
