"""A watcher process that cleans up after its owner, also when the owner was killed with SIGKILL.

The owner holds a pipe and writes lines: `watch PID STARTED_AT`, `unwatch PID STARTED_AT`, `mark VARIABLE=VALUE` (whatever
was started with it in its environment), `file PATH`, `dir PATH`.
When the pipe closes, for whatever reason, the guard asks each watched group to end (SIGTERM), kills what is left of
it and of what descended from it after `GRACE_S`, checking identities throughout, and removes the files and folders.
It runs in its own session, so that a terminal's Ctrl-C does not reach it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from skep.errors import InvalidInput
from skep.errors.process import GuardGone
from skep.process import group
from skep.process.identity import Stat, is_running, read_stat

GRACE_S = 3.5
END_S_MAX = 5.0
_POLL_S = 0.02
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Guard:
    """The owner's end. Everything is synchronous, so that it can be called right after a spawn.

    `close` lets the guard do its work and waits for it: what was stopped before is no longer there to be killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the guard process. Raises: GuardGone."""
        # The child inherits the mask: no signal of a terminal or a supervisor ends it before it can ignore them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skep.process.guard"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise GuardGone(f"the guard process cannot be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    @property
    def pid(self) -> int:
        """The guard's own pid. Raises: GuardGone when it was not started."""
        if self._process is None:
            raise GuardGone("the guard was not started, or is closed")
        return self._process.pid

    def watch(self, pid: int, started_at: int) -> None:
        """End this process, its group and its descendants when we are gone. Raises: GuardGone."""
        self._tell(f"watch {pid} {started_at}")

    def unwatch(self, pid: int, started_at: int) -> None:
        """Forget it: it ended, or may live on. Raises: GuardGone."""
        self._tell(f"unwatch {pid} {started_at}")

    def mark(self, variable: str, value: str) -> None:
        """End every process that has `variable=value` in its environment when we are gone, whoever its parent is.

        Raises: GuardGone, InvalidInput.
        """
        self._tell(f"mark {variable}={value}")

    def file(self, path: Path) -> None:
        """Remove this file when we are gone. Raises: GuardGone, InvalidInput."""
        self._tell(f"file {path.absolute()}")

    def folder(self, path: Path) -> None:
        """Remove this folder and all in it when we are gone. Raises: GuardGone, InvalidInput."""
        self._tell(f"dir {path.absolute()}")

    def close(self) -> None:
        """Let the guard clean up now and wait for it; closing twice is fine."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S_MAX + 1)
            self._process = None

    def _tell(self, line: str) -> None:
        if "\n" in line:
            raise InvalidInput(f"a path with a line end cannot be guarded: {line!r}")
        if self._process is None or self._process.stdin is None:
            raise GuardGone("the guard was not started, or is closed")
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except (BrokenPipeError, ValueError) as error:
            raise GuardGone("the guard process died: what runs now is not watched") from error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Duty:
    """What the guard process was told to do, and the doing of it."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}
        self._marks: list[tuple[str, str]] = []
        self._paths: list[tuple[str, Path]] = []

    def note(self, line: str) -> None:
        """Take one line; what it does not understand it says on stderr, and goes on."""
        verb, _, rest = line.partition(" ")
        try:
            match verb:
                case "watch":
                    pid, started_at = map(int, rest.split())
                    self._watched[pid] = started_at
                case "unwatch":
                    pid, _ = map(int, rest.split())
                    self._watched.pop(pid, None)
                case "mark":
                    variable, _, value = rest.partition("=")
                    self._marks.append((variable, value))
                case "file" | "dir":
                    self._paths.append((verb, Path(rest)))
                case _:
                    raise ValueError(verb)  # noqa: TRY301 - one place says what was not understood
        except ValueError:
            _say(f"not understood: {line!r}")

    def fulfil(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """End the processes, then remove the paths."""
        leaders = [stat for pid, born in self._watched.items() if (stat := _alive(pid, born))]
        doomed = {one.pid: one for leader in leaders for one in self._family(leader)}
        for leader in leaders:
            _signal(leader, signal.SIGTERM)
            _signal(leader, signal.SIGCONT)
        until = clock() + GRACE_S
        while clock() < until and any(is_running(one.pid, one.started_at) for one in doomed.values()):
            time.sleep(_POLL_S)
            leaders = [one for one in leaders if is_running(one.pid, one.started_at)]
            doomed.update({one.pid: one for leader in leaders for one in self._family(leader)})
        group.kill_each(list(doomed.values()))
        self._kill_marked(until=clock() + END_S_MAX - GRACE_S, clock=clock)
        for kind, path in self._paths:
            _remove(kind, path)

    def _kill_marked(self, *, until: float, clock: Callable[[], float]) -> None:
        """Kill what has a mark until nobody is left: one that is just being started may escape a single look."""
        while clock() < until:
            found = [stat for variable, value in self._marks for stat in group.marked(variable, value)]
            found = [stat for stat in found if stat.pid != os.getpid()]
            if not found:
                return
            group.kill_each(found)
            time.sleep(_POLL_S)

    @staticmethod
    def _family(leader: Stat) -> list[Stat]:
        in_group = group.members(leader.pid) if leader.group == leader.pid else []
        return [leader, *in_group, *group.descendants(leader.pid)]


def _alive(pid: int, started_at: int) -> Stat | None:
    stat = read_stat(pid)
    return stat if stat and stat.started_at == started_at and not stat.is_dead else None


def _signal(leader: Stat, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if leader.group == leader.pid:
            os.killpg(leader.pid, number)
        else:
            os.kill(leader.pid, number)


def _say(text: str) -> None:
    with suppress(OSError):  # Stderr may be a pipe whose reader died with the owner.
        sys.stderr.write(f"skep guard: {text}\n")


def _remove(kind: str, path: Path) -> None:
    try:
        if kind == "dir" and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        _say(f"cannot remove {path}: {error}")


def main() -> None:
    """Read lines until the owner is gone, then clean up. Signals that end others do not end the guard."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    duty = Duty()
    for line in sys.stdin:
        duty.note(line.rstrip("\n"))
    duty.fulfil()


if __name__ == "__main__":
    main()
