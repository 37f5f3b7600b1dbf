"""What the owner of a worker is told while it starts: lines on a pipe, and one line on stderr when it cannot."""

import os
import sys
from contextlib import suppress

from skep.wire import start
from skep.wire.start import Failed, Loading, Ready, Starting, StartReport

PROGRESS_STEP = 0.02


def is_open(fd: int | None) -> bool:
    """True for a descriptor that this process has, and for none at all."""
    try:
        if fd is not None:
            os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True


class StartReporter:
    """Writes lines to `fd`, or nowhere. An owner who stopped reading does not stop the worker."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._told = -1.0
        if fd is not None:
            os.set_inheritable(fd, False)  # noqa: FBT003 - the os module's signature

    def starting(self, nonce: str) -> None:
        """Tell who we are."""
        self._write(Starting(pid=os.getpid(), nonce=nonce))

    def loading(self, progress: float) -> None:
        """Tell how far the load is; small steps are left out."""
        if progress - self._told >= PROGRESS_STEP or progress >= 1:
            self._told = progress
            self._write(Loading(progress=round(progress, 4)))

    def ready(self, port: int) -> None:
        """Tell where it accepts, and close the pipe."""
        self._write(Ready(port=port))
        self.close()

    def failed(self, *, code: str, message: str, retryable: bool) -> None:
        """Tell why it gave up, also on stderr, and close the pipe."""
        report = Failed(code=code, message=message, retryable=retryable)
        sys.stderr.write(
            start.encode(report).decode()
        )  # First: who reads the pipe's end then finds it in the log.
        sys.stderr.flush()
        self._write(report)
        self.close()

    def close(self) -> None:
        """Close the pipe; closing twice is fine."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _write(self, report: StartReport) -> None:
        if self._fd is None:
            return
        rest = start.encode(report)
        with suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            return
        self.close()
