"""What is said of the machine, the tree and the libraries of a run. Secrets cannot get in: only listed names do."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from skep import __version__
from skep.proof.records import GitState, Host

GENERATED_BY = f"skep {__version__}"
ENVIRONMENT_ALLOWED = frozenset(
    {
        "CI",
        "CUDA_VISIBLE_DEVICES",
        "GITHUB_RUN_ID",
        "GITHUB_SHA",
        "LANG",
        "LLORCH_BDD_FEATURE_PATH",
        "LLORCH_RUN_ID",
        "OMP_NUM_THREADS",
        "PYTEST_XDIST_WORKER_COUNT",
        "PYTHONHASHSEED",
        "SKEP_FEATURE_PATH",
        "SKEP_RUN_ID",
        "TZ",
    }
)
"""The only variables whose values may enter a bundle. A name that ends in TOKEN, KEY or SECRET never belongs here."""

LIBRARIES = (
    "pytest",
    "pytest-bdd",
    "pytest-xdist",
    "msgspec",
    "aiohttp",
    "litestar",
    "uvicorn",
    "xllamacpp",
    "llguidance",
)
GIT_S_MAX = 10


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the allowed variables that are set, sorted."""
    found = os.environ if variables is None else variables
    return {name: found[name] for name in sorted(ENVIRONMENT_ALLOWED) if name in found}


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the installed version of skep and of each library that is installed."""
    found = {"skep": __version__}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def host() -> Host:
    """Describe this machine."""
    return Host(
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu_count=os.cpu_count() or 1,
        ram_total_bytes=psutil.virtual_memory().total,
        ci="github" if "GITHUB_RUN_ID" in os.environ else ("yes" if "CI" in os.environ else ""),
    )


def git_state(folder: Path) -> GitState | None:
    """Return the commit and dirtiness of the tree around `folder`; None where there is no git or no tree."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return GitState(commit=commit, dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_S_MAX,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
