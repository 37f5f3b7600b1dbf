"""Run ids: `YYYYMMDD-HHMMSS-<sha8>`, or a name that the user gives."""

import hashlib
import re
from datetime import UTC, datetime

from skep.errors.proof import InvalidRunId

LENGTH_MAX = 100
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def new_run_id(*, at: float, salt: str) -> str:
    """Return an id that sorts by time; `salt` (the commit, the pid, …) makes two of one second differ."""
    stamp = datetime.fromtimestamp(at, tz=UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{hashlib.sha256(f'{at!r} {salt}'.encode()).hexdigest()[:8]}"


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it may be a folder's name. Raises: InvalidRunId."""
    if len(run_id) > LENGTH_MAX or not _SAFE.fullmatch(run_id):
        raise InvalidRunId(
            f"run id {run_id[:LENGTH_MAX]!r} cannot name a folder: use letters, digits, '.', '_' and '-', "
            f"at most {LENGTH_MAX} of them, starting with a letter or digit",
            run_id=run_id,
        )
    return run_id
