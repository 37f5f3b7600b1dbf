"""The suite's own gate: what `skep prove --dry-run` finds in our features."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_features_have_no_undefined_or_ambiguous_steps() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", "prove", "--dry-run", "tests/features"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/features/test_health.py" in done.stdout, done.stdout
