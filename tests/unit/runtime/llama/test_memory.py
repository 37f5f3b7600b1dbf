from skep.runtime.backend import MemoryUse
from skep.runtime.llama.memory import buffers

MIB = 1024 * 1024


def test_host_and_device_buffers_are_told_apart() -> None:
    lines = [
        "load_tensors:   CPU_Mapped model buffer size =   100.00 MiB",
        "load_tensors:        CUDA0 model buffer size =  4000.00 MiB",
        "load_tensors:    CUDA_Host  output buffer size =     2.00 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB",
        "sched_reserve:        CPU compute buffer size =     8.50 MiB",
    ]
    assert buffers(lines) == MemoryUse(ram_bytes=int(110.5 * MIB), device_bytes=4512 * MIB)


def test_other_lines_count_for_nothing() -> None:
    assert buffers(["model size = 12 MiB", "", "KV size"]) == MemoryUse(ram_bytes=0, device_bytes=0)
