"""NVIDIA devices through NVML, the driver's own library."""

from typing import Any

from skep.errors.hive import DiscoveryFailed
from skep.spec.device import Device, DeviceKind


class NvmlSource:
    """Opens and closes NVML each time, so that a driver that was reloaded is seen."""

    name = "nvml"

    def __init__(self, library: Any = None) -> None:
        """`library` stands in for `pynvml`."""
        if library is None:
            import pynvml

            library = pynvml
        self._nvml = library

    def discover(self) -> list[Device]:
        """Return the devices; none without a driver. Raises: DiscoveryFailed."""
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
            return []
        except nvml.NVMLError as error:
            raise DiscoveryFailed(f"NVML does not start: {error}", source=self.name) from error
        try:
            return [self._device(index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            raise DiscoveryFailed(f"NVML: {error}", source=self.name) from error
        finally:
            nvml.nvmlShutdown()

    def _device(self, index: int) -> Device:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        capability = self._unless_unsupported(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        temperature = self._unless_unsupported(
            nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
        )
        return Device(
            id=_text(nvml.nvmlDeviceGetUUID(handle)),
            kind=DeviceKind.CUDA,
            index=index,
            name=_text(nvml.nvmlDeviceGetName(handle)),
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.used,
            memory_free_bytes=memory.free,
            temperature_c=None if temperature is None else float(temperature),
            compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
            pci_bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
            pids=self._pids(handle),
        )

    def _pids(self, handle: Any) -> tuple[int, ...]:
        running = self._unless_unsupported(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        return tuple(sorted({one.pid for one in running or ()}))

    def _unless_unsupported(self, ask: Any, *arguments: Any) -> Any:
        """Return the answer; None where this device does not offer it."""
        try:
            return ask(*arguments)
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_NoPermission):
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
