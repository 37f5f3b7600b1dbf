"""Files as a host takes them: a name only for what is whole, whatever the host sums with, under whatever shell it has."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from skep.rollout.steps import EXIT_STEP_FAILED, Receive, RemoteStep, Upload, render
from skep.rollout.transport import HEARD

DATA = bytes(range(256)) * 1000
TARGET = ".cache/skep/upload/a b/it's"
# What may stand in the place of openssl on a host.
OPENSSLS = {
    "as it is": None,
    "missing": "#!/bin/sh\nexit 127\n",
    "broken": "#!/bin/sh\necho 'error while loading shared libraries' >&2; exit 1\n",
    "lying": f"#!/bin/sh\necho '{'0' * 64} *stdin'\n",
}


def take(
    programs: Path, home: Path, sent: bytes, *, sha256: str, mode: int = 0o600
) -> subprocess.CompletedProcess[bytes]:
    """Let a shell run the script of one upload, and say `sent` to it."""
    upload = Upload(source="/c/f", target=TARGET, sha256=sha256, mode=mode)
    script = render(
        [], nonce="0" * 16, manifest_text="", receives=[Receive(upload=upload, size_bytes=len(DATA))]
    )
    return subprocess.run(
        ["sh", "-c", f"exec {HEARD}<&0 </dev/null\nbegin_watch() {{ :; }}\n{script}"],
        input=sent,
        capture_output=True,
        env={"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"},
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.mark.parametrize("openssl", OPENSSLS)
def test_a_whole_file_gets_its_name_whatever_openssl_says(programs: Path, home: Path, openssl: str) -> None:
    if text := OPENSSLS[openssl]:
        (programs / "openssl").write_text(text)
        (programs / "openssl").chmod(0o700)
    done = take(programs, home, DATA, sha256=hashlib.sha256(DATA).hexdigest(), mode=0o700)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (home / TARGET).read_bytes() == DATA
    assert (home / TARGET).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("sent", [DATA[:-1], b"", DATA[:-1] + b"x"], ids=["short", "nothing", "changed"])
def test_a_file_that_is_not_whole_gets_no_name_and_leaves_nothing(
    programs: Path, home: Path, sent: bytes
) -> None:
    done = take(programs, home, sent, sha256=hashlib.sha256(DATA).hexdigest())
    assert done.returncode == EXIT_STEP_FAILED
    assert b"checksum wrong: it was damaged on its way\n" in done.stdout
    assert list((home / TARGET).parent.iterdir()) == []


@pytest.mark.parametrize("sent", [DATA[:-1], b""], ids=["short", "nothing"])
def test_a_secret_that_has_no_checksum_is_held_to_its_length(programs: Path, home: Path, sent: bytes) -> None:
    done = take(programs, home, sent, sha256="")
    assert done.returncode == EXIT_STEP_FAILED
    assert not (home / TARGET).exists()
    assert take(programs, home, DATA, sha256="").returncode == 0
    assert (home / TARGET).stat().st_mode & 0o777 == 0o600


def test_a_host_that_serves_asks_before_it_switches_and_one_that_has_nothing_to_keep_does_not() -> None:
    switch = RemoteStep(name="switch", detail="", script=":")

    def script(*, serves: bool) -> str:
        return render([switch], nonce="0" * 16, manifest_text="", serves=serves)

    assert "$N ask" in script(serves=True)
    assert "$N ask" not in script(serves=False)
