"""Commands that run around a step: before the simulation starts, after it started, before and after it is deleted.

The order of phases is `pre_start, post_start, pre_stop, post_stop`. A hook learns of its simulation by environment:
`SKEP_SIMULATION`, `SKEP_NAMESPACE`, `SKEP_DEPLOYMENT`, `SKEP_PHASE`.
"""

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from skep.errors.arena import HookFailed

PHASES: Final = ("pre_start", "post_start", "pre_stop", "post_stop")
OUTPUT_CHARACTERS_MAX: Final = 500


class Hook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command of a phase; it gets `timeout_s`, and may be allowed to fail."""

    phase: str
    argv: tuple[str, ...]
    ignore_failure: bool = False
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"no phase {self.phase!r}; there are {', '.join(PHASES)}")
        if not self.argv or self.timeout_s <= 0:
            raise ValueError("a hook needs a command and a positive timeout_s")


HookCall = Callable[[Mapping[str, str]], None]


def run_hooks(phase: str, hooks: Iterable[Hook], environment: Mapping[str, str]) -> int:
    """Run a phase's hooks in their order; return how many ran. Raises: HookFailed at the first that may not fail."""
    ran = 0
    for hook in hooks:
        if hook.phase == phase:
            ran += 1
            _run(hook, {**os.environ, **environment, "SKEP_PHASE": phase})
    return ran


def _run(hook: Hook, environment: Mapping[str, str]) -> None:
    what = " ".join(hook.argv)
    try:
        done = subprocess.run(
            hook.argv,
            env=environment,
            timeout=hook.timeout_s,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        failure, output = f"took longer than {hook.timeout_s} s", ""
    except OSError as error:
        failure, output = f"cannot start: {error.strerror or error}", ""
    else:
        failure = f"exit {done.returncode}" if done.returncode else ""
        output = done.stderr.decode(errors="replace").strip()[-OUTPUT_CHARACTERS_MAX:]
    if failure and not hook.ignore_failure:
        raise HookFailed(
            f"hook {hook.phase} `{what}`: {failure}" + (f": {output}" if output else ""), argv=hook.argv
        )
