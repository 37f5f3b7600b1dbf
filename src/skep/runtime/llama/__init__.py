"""llama.cpp by ctypes: a library found and probed, and over it a model, its sessions and their samplers."""

from skep.runtime.llama.backend import LlamaBackend

__all__ = ["LlamaBackend"]
