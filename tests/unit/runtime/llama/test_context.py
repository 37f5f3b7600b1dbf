import pytest

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import DeviceError, DeviceOutOfMemory, InsufficientMemory
from skep.runtime.llama.context import _refused


@pytest.mark.parametrize(
    ("text", "has_devices", "kind"),
    [
        ("failed to allocate buffer of size 99", False, InsufficientMemory),
        ("failed to allocate CPU buffer of size 99", True, InsufficientMemory),
        ("failed to allocate CUDA_Host buffer", True, InsufficientMemory),
        ("failed to allocate Vulkan0 buffer of size 99", True, DeviceOutOfMemory),
        ("cudaMalloc failed: out of memory", True, DeviceOutOfMemory),
        ("CUDA error: no kernel image", True, DeviceError),
        ("quantized V cache was requested, but this requires Flash Attention", False, InvalidInput),
        ("", False, InvalidInput),
    ],
)
def test_a_context_that_did_not_open_says_whose_memory_it_was(
    text: str, has_devices: bool, kind: type[SkepError]
) -> None:
    error = _refused(text, 99, has_devices=has_devices)
    assert type(error) is kind
    assert "could not be opened" in str(error)
