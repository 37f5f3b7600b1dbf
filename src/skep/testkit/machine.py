"""What a run is made of, for its proof bundle: the devices of this machine, and what is tested, by digest."""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from skep.errors.hive import DiscoveryFailed
from skep.proof.attestation import sha256_of
from skep.proof.records import Subject
from skep.runtime.models import TINY

_DISTRIBUTION = "skep"


@functools.cache
def machine_devices() -> tuple[str, ...]:
    """The ids of this machine's devices, as a hive would find them; the CPU last."""
    from skep.hive.devices.nvml import NvmlSource

    try:
        found = tuple(each.id for each in NvmlSource().discover())
    except DiscoveryFailed:
        found = ()
    return (*found, "cpu")


def tested_subjects() -> tuple[Subject, ...]:
    """What is under test: our package as it is installed, and the model that the labs serve."""
    return (
        Subject(name=_package_name(), sha256=_package_digest()),
        Subject(name=f"model {Path(TINY).name}", sha256=sha256_of(Path(TINY))),
    )


def _package_name() -> str:
    return f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}, its installed files"


def _package_digest() -> str:
    """The digest of the digests of the package's files, by name: the same for a wheel and for the tree it was made of.

    A wheel's own archive is not there any more once it is installed.
    """
    import skep

    root = Path(skep.__file__).parent
    lines = [
        f"{sha256_of(path)}  {path.relative_to(root).as_posix()}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
