"""Loaded by every Python below the mutation run: daemons get the mutant, or tell what they reach; tests do not.

A daemon that has loaded the mutant says so in a file, and the run believes no verdict without it.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path

DAEMONS = ("hive", "queen", "worker")


def _daemon() -> str:
    argv = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    if b"skep.cli.main" not in argv:
        return ""
    following = argv[argv.index(b"skep.cli.main") + 1].decode()
    return following if following in DAEMONS else ""


def _append(path: str, line: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


class _Mutant(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, plan: dict[str, str], daemon: str) -> None:
        self.plan, self.daemon = plan, daemon

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.plan["module"] else None

    def exec_module(self, module: object) -> None:
        exec(compile(self.plan["source"], self.plan["module"], "exec"), vars(module))  # noqa: S102 - ours, changed by us
        _append(self.plan["mark"], f"{self.daemon} {os.getpid()} {self.plan['key']}")


class _Reach(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Puts a call at the top of each function of the pure rooms; each thing is told once for each process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.told: set[str] = set()

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.startswith(("skep.policy.", "skep.lifecycle.")):
            return importlib.util.spec_from_loader(name, self)
        return None

    def exec_module(self, module: object) -> None:
        name = vars(module)["__name__"]
        import skep

        path = Path(skep.__path__[0], *name.split(".")[1:]).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                argument = repr(f"{name}:{node.name}")
                if name == "skep.lifecycle.table" and node.name == "advance":
                    argument = 'f"{self.name}:{state}:{event}"'
                node.body.insert(0, ast.parse(f"__skep_reach__({argument})").body[0])
        vars(module)["__skep_reach__"] = self.tell
        exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(module))  # noqa: S102 - as above

    def tell(self, what: str) -> None:
        if what not in self.told:
            self.told.add(what)
            _append(f"{self.folder}/reached", f"{what}\t{os.environ.get('SKEP_SCENARIO', '')}")


if _kind := _daemon():
    if _plan := os.environ.get("SKEP_MUTANT"):
        sys.meta_path.insert(0, _Mutant(json.loads(Path(_plan).read_text(encoding="utf-8")), _kind))
    elif _folder := os.environ.get("SKEP_REACH"):
        sys.meta_path.insert(0, _Reach(_folder))
