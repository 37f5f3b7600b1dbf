"""A file's digest: apart from `files`, so that who only compares does not wait for an HTTP client to be imported."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
