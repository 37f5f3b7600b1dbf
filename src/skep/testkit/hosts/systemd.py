"""Hosts in containers that systemd boots, with users' managers as a login starts them: for hives that are services.

The interpreter of this process, its packages and this checkout are mounted read-only, so that the hive there is ours.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import skep
from skep.testkit.hosts.container import ContainerHost, ContainerLab

SOURCES = Path(skep.__file__).resolve().parents[1]


class SystemdHost(ContainerHost):
    """One container whose first process is systemd, which starts sshd; PAM opens a session for each login."""

    first_process = ("/lib/systemd/systemd",)

    def make(self, *, bridge: str, prefix: int, authorized: str) -> None:
        """Create what every container has, with logins that PAM sees."""
        super().make(bridge=bridge, prefix=prefix, authorized=authorized)
        config = self.folder / "ssh/sshd_config"
        config.write_text(config.read_text().replace("UsePAM no", "UsePAM yes"))

    def more_options(self) -> Sequence[str]:
        """Mount this program's own folders, each once, and have podman prepare the container for systemd."""
        ours = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), SOURCES}
        mounts = [("--volume", f"{path}:{path}:ro") for path in sorted(ours)]
        return ("--systemd", "always", *(word for mount in mounts for word in mount))


class SystemdLab(ContainerLab):
    """N such containers. Use with `async with`."""

    host_class = SystemdHost
