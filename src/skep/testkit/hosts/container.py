"""Hosts in containers (podman): a Debian of their own with sshd, on the same bridge as the namespace lab's.

Podman keeps its storage and state inside a private folder: nothing of the machine's own containers is seen or touched.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from skep.errors.testkit import LabUnavailable
from skep.spec.folders import folders
from skep.testkit.hosts import image, netns

CONFIG = """[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
PODMAN_S_MAX = 180.0
# An image takes minutes to make: it is kept for every run of this user.
IMAGE_CACHE = folders(os.environ).cache / "hosts"


def missing() -> str:
    """Return why this lab cannot run here, or "" when it can."""
    return netns.missing() or image.missing()


class ContainerHost(netns.NetnsHost):
    """One container. `podman` is the command with its private folders."""

    podman: tuple[str, ...] = ()
    first_process: tuple[str, ...] = ("sh", "-c", "mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e")
    environment: dict[str, str]

    def boot_argv(self) -> Sequence[str]:
        """Return what starts the host: podman in the foreground, so that the container ends with us."""
        return (
            *self.podman,
            *(
                "run",
                "--rm",
                "--name",
                self.container,
                "--pull",
                "never",
                "--hostname",
                self.alias,
                "--uts",
                "private",
            ),
            *("--network", f"ns:/run/netns/{self.namespace}", "--log-driver", "none"),
            *(
                "--volume",
                f"{self.home}:/root",
                "--volume",
                f"{self.folder}/ssh:/etc/ssh",
                "--workdir",
                "/root",
            ),
            *self.more_options(),
            *(image.NAME, *self.first_process),
        )

    def more_options(self) -> Sequence[str]:
        """Return what else podman is to be told; nothing for a host that is sshd alone."""
        return ()

    @property
    def container(self) -> str:
        """The container's name."""
        return self.namespace

    async def crash(self) -> None:
        """Kill the container at once, and wait until podman has put it away."""
        if self.process is not None and self.process.returncode is None:
            await _podman(
                self.podman, self.environment, "kill", "--signal", "KILL", self.container, is_needed=False
            )
        await super().crash()
        await _podman(
            self.podman, self.environment, "rm", "--force", "--ignore", self.container, is_needed=False
        )


class ContainerLab(netns.NetnsLab):
    """N containers from one image. Use with `async with`; the first use on a machine makes the image (a minute)."""

    host_class = ContainerHost

    def __init__(self, folder: Path, hosts: int = 3, *, cache: Path) -> None:
        super().__init__(folder, hosts)
        self._cache = cache
        # Podman refuses a run folder whose path is longer than 50 characters.
        state = Path("/run") / f"skep-{hashlib.sha256(str(cache).encode()).hexdigest()[:8]}"
        self._podman = (
            *("podman", "--root", str(cache / "podman")),
            *("--runroot", str(state / "run"), "--tmpdir", str(state / "tmp")),
        )
        self._environment = {**os.environ, "CONTAINERS_CONF": str(cache / "containers.conf")}

    async def __aenter__(self) -> Self:
        if why := missing():
            raise LabUnavailable(why)
        tar = await asyncio.to_thread(image.ensure_tar, self._cache)
        (self._cache / "containers.conf").write_text(CONFIG)
        if not await _podman(self._podman, self._environment, "image", "exists", image.NAME, is_needed=False):
            await _podman(self._podman, self._environment, "import", "--quiet", str(tar), image.NAME)
        return await super().__aenter__()

    def prepare(self, host: netns.NetnsHost) -> None:
        """Give a host its engine."""
        assert isinstance(host, ContainerHost)
        host.podman, host.environment = self._podman, self._environment


async def _podman(
    podman: Sequence[str], environment: dict[str, str], *argv: str, is_needed: bool = True
) -> bool:
    """Run a podman command; True when it succeeded. Raises: LabUnavailable when one that is needed fails."""
    process = await asyncio.create_subprocess_exec(
        *podman, *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(PODMAN_S_MAX):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise LabUnavailable(f"podman {argv[0]} did not end within {PODMAN_S_MAX:g} s") from None
    if process.returncode and is_needed:
        raise LabUnavailable(f"podman {argv[0]} failed: {out.decode(errors='replace').strip()[-500:]}")
    return process.returncode == 0
