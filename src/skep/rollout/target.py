"""Which wheels fit a host: pure functions from its facts to the platform tags and the marker environment that pip is told."""

import re

import msgspec

from skep.rollout.facts import HostFacts

MUSL = (1, 2)
"""Taken for every musl host: the facts do not tell the version, and none with Python 3.11 has an earlier one."""
MACOS = "macosx_11_0"
"""Taken for every Mac: the facts do not tell the version, and pip knows the earlier tags from this one."""
OLDEST_GLIBC_MINOR = 17
OLDEST_GLIBC_MINORS = {"x86_64": 5, "i686": 5}
OLD_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of host that the same wheels fit. `libc` is glibc, musl or, on a Mac, nothing; `python` is "3.12"."""

    kernel: str
    machine: str
    libc: str
    libc_version: tuple[int, int]
    python: str

    @property
    def slug(self) -> str:
        """The name that files carry."""
        libc = f"-{self.libc}{self.libc_version[0]}.{self.libc_version[1]}" if self.libc else ""
        return f"{self.kernel}-{self.machine}{libc}-py{self.python}".lower()

    def __str__(self) -> str:
        """Return the name that people read."""
        libc = f"{self.libc} {self.libc_version[0]}.{self.libc_version[1]}, " if self.libc else ""
        return f"{self.kernel} {self.machine} ({libc}Python {self.python})"

    def serves(self, other: "Target") -> bool:
        """True when what was built on this one runs on the other: its C library may only be newer."""
        same = msgspec.structs.replace(other, libc_version=self.libc_version) == self
        return same and self.libc_version <= other.libc_version


def target_of(*, kernel: str, machine: str, libc: str, python: str) -> Target:
    """Return the kind of a machine. `libc` is what `getconf GNU_LIBC_VERSION`, or else `ldd --version`, said first.

    Raises: ValueError, which says what wheels cannot be found for.
    """
    if kernel == "Darwin":
        return Target(kernel=kernel, machine=machine, libc="", libc_version=(0, 0), python=python)
    if kernel != "Linux":
        raise ValueError(f"there are no wheels for {kernel}")
    if libc.startswith("musl"):
        return Target(kernel=kernel, machine=machine, libc="musl", libc_version=MUSL, python=python)
    found = re.search(r"(\d+)\.(\d+)\s*$", libc) if re.match(r"glibc |ldd \(", libc) else None
    if found is None:
        raise ValueError(f"the C library cannot be told (it says {libc or 'nothing'!r})")
    version = (int(found[1]), int(found[2]))
    return Target(kernel=kernel, machine=machine, libc="glibc", libc_version=version, python=python)


def lacks_of(facts: HostFacts) -> list[str]:
    """Return why no wheels can be gathered for a host; empty when they can."""
    try:
        target_of(kernel=facts.kernel, machine=facts.machine, libc=facts.libc, python="")
    except ValueError as error:
        return [
            f"{error}, so none are gathered here: set install.local.path to a folder of this host's wheels"
        ]
    return []


def platforms(target: Target) -> tuple[str, ...]:
    """Return the platform tags that fit, best first, in the order of pip on such a host."""
    machine = target.machine
    if target.kernel == "Darwin":
        return (f"{MACOS}_{machine}",)
    if target.libc == "musl":
        major, minor = target.libc_version
        names = [f"musllinux_{major}_{n}" for n in range(minor, -1, -1)]
    else:
        oldest = OLDEST_GLIBC_MINORS.get(machine, OLDEST_GLIBC_MINOR)
        names = []
        for minor in range(target.libc_version[1], oldest - 1, -1):
            names.append(f"manylinux_2_{minor}")
            names += [OLD_ALIASES[minor]] if minor in OLD_ALIASES else []
    return tuple(f"{name}_{machine}" for name in ("linux", *names))


def markers(target: Target) -> dict[str, str]:
    """Return the environment that a dependency's marker is held against (PEP 508).

    What the facts do not tell: the patch version is taken for 0, the kernel's release too.
    """
    python = f"{target.python}.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "0",
        "platform_system": target.kernel,
        "platform_version": "0",
        "python_full_version": python,
        "python_version": target.python,
        "sys_platform": target.kernel.lower(),
    }
