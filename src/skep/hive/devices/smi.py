"""NVIDIA devices through the `nvidia-smi` program, where NVML itself does not answer."""

import csv
import shutil
import subprocess

from skep.errors.hive import DiscoveryFailed
from skep.spec.device import Device, DeviceKind

_FIELDS = (
    "uuid", "index", "name", "memory.total", "memory.used", "memory.free", "temperature.gpu", "compute_cap", "pci.bus_id",
)  # fmt: skip
_MIB = 1024**2
_LIMIT_S = 10.0


class SmiSource:
    """Runs `nvidia-smi` twice: the devices, and the processes on them."""

    name = "nvidia-smi"

    def __init__(self, program: str = "nvidia-smi") -> None:
        self._program = program

    def discover(self) -> list[Device]:
        """Return the devices; none when the program is not installed. Raises: DiscoveryFailed."""
        if shutil.which(self._program) is None:
            return []
        rows = self._ask(f"--query-gpu={','.join(_FIELDS)}")
        pids: dict[str, set[int]] = {}
        for row in self._ask("--query-compute-apps=gpu_uuid,pid"):
            if len(row) == 2 and row[1].isdecimal():  # noqa: PLR2004 - two columns were asked for
                pids.setdefault(row[0], set()).add(int(row[1]))
        try:
            return [_device(row, tuple(sorted(pids.get(row[0], ())))) for row in rows]
        except (ValueError, IndexError) as error:
            raise DiscoveryFailed(
                f"{self._program} answered what is not understood: {error}", source=self.name
            ) from error

    def _ask(self, query: str) -> list[list[str]]:
        try:
            done = subprocess.run(
                [self._program, query, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = (error.stdout or error.stderr).strip()
            if "No devices were found" in said:
                return []
            raise DiscoveryFailed(f"{self._program}: {said or error}", source=self.name) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DiscoveryFailed(f"{self._program}: {error}", source=self.name) from error
        return [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines()) if row]


def _device(row: list[str], pids: tuple[int, ...]) -> Device:
    uuid, index, name, total, used, free, temperature, capability, bus = row
    return Device(
        id=uuid,
        kind=DeviceKind.CUDA,
        index=int(index),
        name=name,
        memory_total_bytes=_bytes(total),
        memory_used_bytes=_bytes(used),
        memory_free_bytes=_bytes(free),
        temperature_c=float(temperature) if temperature.replace(".", "", 1).isdecimal() else None,
        compute_capability=None if capability.startswith("[") else capability,
        pci_bus_id=bus,
        pids=pids,
    )


def _bytes(mebibytes: str) -> int:
    """Return bytes; a device without memory of its own answers `[N/A]`, which is none."""
    return 0 if mebibytes.startswith("[") else int(float(mebibytes) * _MIB)
