"""What this machine says that matters to a plan: programs on PATH, what a ref means now, which toolchain."""

import os
import platform
import shutil
import sys

from skep.errors.provision import BadReference
from skep.provision.command import output_of
from skep.provision.plan import FLAG_TOOLS, Facts
from skep.spec.engine import EngineSpec, EngineWay

TOOLS = ("git", "cmake", "make", "cc", "c++", *FLAG_TOOLS.values())
COMMIT_HEX = 40


async def gather(engine: EngineSpec) -> Facts:
    """Read the machine for one engine. Raises: BadReference when the repository or the ref is not there."""
    tools = {tool: path for tool in (*TOOLS, engine.executable) if (path := shutil.which(tool))}
    tools["python3"] = sys.executable
    commit = toolchain = ""
    if engine.way is EngineWay.SOURCE and "git" in tools:
        commit = await commit_of(engine.repo, engine.ref)
        toolchain = await _toolchain(tools)
    return Facts(
        tools=tools,
        commit=commit,
        toolchain=toolchain,
        cores=len(os.sched_getaffinity(0)),
        platform=f"{platform.system()}-{platform.machine()}-py{sys.version_info.major}.{sys.version_info.minor}",
    )


async def commit_of(repo: str, ref: str) -> str:
    """Return the commit that `ref` (branch, tag or full commit) means at `repo` now. Raises: BadReference."""
    if len(ref) == COMMIT_HEX and all(char in "0123456789abcdef" for char in ref):
        return ref
    code, text = await output_of(["git", "ls-remote", "--exit-code", "--", repo, ref, f"{ref}^{{}}"])
    if code != 0:
        last = (text.strip().splitlines() or [f"no ref {ref!r} there"])[-1]
        raise BadReference(f"{repo}@{ref}: {last}", repo=repo, ref=ref, exit_code=code)
    pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    found = {name: commit for commit, name in pairs}
    for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
        if name in found:
            return found[name]
    # `ls-remote` matches the ends of names: "fix" also finds "alice/fix", which is another branch.
    near = ", ".join(sorted(found)) or "nothing like it"
    raise BadReference(f"{repo} has no branch or tag {ref!r}; it has {near}", repo=repo, ref=ref)


async def _toolchain(tools: dict[str, str]) -> str:
    """Return the first line of each compiler's `--version`: another compiler gives another build."""
    names = [name for name in ("cc", "c++", "nvcc", "hipcc") if name in tools]
    lines = [(await output_of([tools[name], "--version"]))[1].splitlines()[:1] for name in names]
    return "; ".join(line[0] for line in lines if line)
