"""Mutants against the unit tests of their room."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from forking import exit_status, warm_up
from mutants import TARGETS, Mutant
from results import Results

MUTANT_S_MAX = 90.0
MARKER = "__skep_mutant__"


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a text."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Answer for the one module."""
        return importlib.util.spec_from_loader(name, self) if name == self.module else None

    def exec_module(self, module: object) -> None:
        """Run the mutant, and leave the sign that it is the one that runs."""
        exec(compile(self.source, self.module, "exec"), vars(module))  # noqa: S102 - our own source, changed by us
        setattr(module, MARKER, True)


def try_units(mutants: Sequence[Mutant], results: Results, *, deadline_s: float) -> None:
    """Run each mutant's tests until one fails. Raises: SystemExit when the tests fail without any change."""
    warm_up()
    controlled: set[str] = set()
    for mutant in mutants:
        if mutant.key in results.found:
            continue
        if time.monotonic() > deadline_s:
            return
        if mutant.module not in controlled:
            path = Path("src", *mutant.module.split(".")).with_suffix(".py")
            if _is_killed(mutant.module, path.read_text(encoding="utf-8")):
                sys.exit(
                    f"{mutant.module}: its tests fail without a change: a mutant's death would mean nothing"
                )
            controlled.add(mutant.module)
        verdict = "killed" if _is_killed(mutant.module, mutant.source) else "survived"
        results.add(mutant.key, verdict, place=f"{mutant.module}:{mutant.line}", word=mutant.word)
        if verdict == "survived":
            print(f"survived: {mutant.module}:{mutant.line}: {mutant.text}: {mutant.word}", flush=True)


def _is_killed(module: str, source: str) -> bool:
    def put_in_place() -> None:
        sys.meta_path.insert(0, Hook(module, source))
        loaded = importlib.import_module(module)  # Now: pytest's own import hook would come before ours.
        if not getattr(loaded, MARKER, False):
            raise SystemExit(9)

    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "-x",
            "-o",
            "skep_bdd=false",
            "-o",
            "skep_ledger=false",
            "--noconftest",
            *TARGETS[module],
        ]
        status = exit_status(arguments, before=put_in_place, log=Path(folder) / "log", within_s=MUTANT_S_MAX)
        if status == 9:
            sys.exit(f"{module}: the mutant is not what the tests imported")
        return status != 0
