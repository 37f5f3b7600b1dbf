"""Running one provisioning program to its end, with a log, a limit and nothing left behind."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from skep.errors.provision import BuildFailed, StepTimedOut

LOG_TAIL_LINES = 30
LOG_TAIL_BYTES_MAX = 16_384
OUTPUT_BYTES_MAX = 1 << 20
REAP_S_MAX = 10.0
QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "LC_ALL": "C.UTF-8",
}


async def run_logged(
    argv: Sequence[str], *, name: str, log: Path, limit_s: float, env: Mapping[str, str] | None = None
) -> None:
    """Run `argv` to its end, appending its output to `log`.

    The process group is killed when the limit runs out or the caller is cancelled.
    Raises: BuildFailed (with the log's last lines), StepTimedOut.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"\n$ {' '.join(argv)}\n".encode())
        out.flush()
        code = await _run(argv, limit_s=limit_s, env=env, name=name, out=out.fileno())
    if code != 0:
        tail = log_tail(log)
        raise BuildFailed(
            f"{name} failed (exit {code}); the log is {log}\n{tail}",
            step=name,
            exit_code=code,
            log=str(log),
            log_tail=tail,
        )


async def _run(
    argv: Sequence[str], *, limit_s: float, env: Mapping[str, str] | None, name: str, out: int
) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **QUIET, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(
            f"{name}: cannot start {argv[0]}: {error.strerror}", step=name, log_tail=""
        ) from error
    try:
        async with asyncio.timeout(limit_s):
            return await process.wait()
    except TimeoutError:
        raise StepTimedOut(
            f"{name} ran longer than {limit_s:g} s and was stopped", step=name, limit_s=limit_s
        ) from None
    finally:
        # Children of a build may outlive it: the whole group goes, without awaiting first.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            async with asyncio.timeout(REAP_S_MAX):
                await asyncio.shield(process.wait())


async def output_of(argv: Sequence[str], *, limit_s: float = 60.0) -> tuple[int, str]:
    """Return the exit code and up to 1 MiB of merged output; 127 and the reason when it cannot be started."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **QUIET},
            start_new_session=True,
        )
    except OSError as error:
        return 127, str(error.strerror)
    try:
        async with asyncio.timeout(limit_s):
            assert process.stdout is not None
            text = await _read_bounded(process.stdout)
            return await process.wait(), text.decode(errors="replace")
    except TimeoutError:
        return 124, f"no answer within {limit_s:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await asyncio.shield(process.wait())


async def _read_bounded(stream: asyncio.StreamReader) -> bytes:
    """Read to the end and keep the first `OUTPUT_BYTES_MAX`: a program that says more is still read, so that it can end."""
    kept = bytearray()
    while chunk := await stream.read(65_536):
        kept += chunk[: OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)


def log_tail(log: Path) -> str:
    """Return the last lines of a log, bounded."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - LOG_TAIL_BYTES_MAX))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])
