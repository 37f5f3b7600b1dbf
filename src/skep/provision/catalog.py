"""Well-known engines by short name, so that `llama-cpp` with `cuda` need not be spelled out as a repository and flags."""

from collections.abc import Callable, Sequence

from skep.errors import InvalidConfig
from skep.spec.engine import EngineKind, EngineSpec, EngineWay

LLAMA_CPP_REPO = "https://github.com/ggml-org/llama.cpp"
LLAMA_CPP_BRANCH = "master"
# The server alone, and nothing fetched while it is built: neither its web page nor tests and examples. An option that a
# version does not know is a warning of CMake's.
LLAMA_CPP_FLAGS = (
    "LLAMA_CURL=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
)

# Feature → the CMake option of llama.cpp (docs/build.md there) that switches its device backend on.
FEATURE_FLAGS: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "cuda": ("GGML_CUDA=ON",),
    "metal": ("GGML_METAL=ON",),
    "rocm": ("GGML_HIP=ON",),
    "vulkan": ("GGML_VULKAN=ON",),
}
LATEST = "latest"


def _llama_cpp(version: str, features: Sequence[str]) -> EngineSpec:
    flags = tuple(flag for feature in features for flag in FEATURE_FLAGS[feature])
    return EngineSpec(
        id="llama-cpp",
        kind=EngineKind.LLAMA_SERVER,
        way=EngineWay.SOURCE,
        repo=LLAMA_CPP_REPO,
        ref=LLAMA_CPP_BRANCH if version == LATEST else version,
        flags=(*LLAMA_CPP_FLAGS, *flags),
        program="llama-server",
    )


def _vllm(version: str, features: Sequence[str]) -> EngineSpec:
    wrong = sorted(set(features) - {"cuda", "cpu"})
    if wrong:
        raise InvalidConfig(f"vllm has no feature {wrong[0]!r} here: use cuda or cpu", feature=wrong[0])
    requirement = "vllm" if version == LATEST else f"vllm=={version}"
    return EngineSpec(
        id="vllm", kind=EngineKind.VLLM, way=EngineWay.PACKAGE, package=requirement, program="vllm"
    )


def _skep(version: str, features: Sequence[str]) -> EngineSpec:  # noqa: ARG001 - it comes with skep itself
    return EngineSpec(id="skep", kind=EngineKind.SKEP)


CATALOG: dict[str, Callable[[str, Sequence[str]], EngineSpec]] = {
    "skep": _skep,
    "llama-cpp": _llama_cpp,
    "llama-server": _llama_cpp,
    "vllm": _vllm,
}


def engine_for(name: str, *, version: str = LATEST, features: Sequence[str] = ()) -> EngineSpec:
    """Return the declaration of a well-known engine. Raises: InvalidConfig that lists what there is."""
    if name not in CATALOG:
        raise InvalidConfig(f"no engine {name!r}: known are {', '.join(sorted(CATALOG))}", name=name)
    unknown = sorted(set(features) - FEATURE_FLAGS.keys())
    if unknown:
        raise InvalidConfig(
            f"no feature {unknown[0]!r}: known are {', '.join(sorted(FEATURE_FLAGS))}", feature=unknown[0]
        )
    return CATALOG[name](version, features)
