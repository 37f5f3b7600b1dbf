"""What people are told of a worker that ended."""

import signal
from types import SimpleNamespace

from skep.hive.crash import of_exit
from skep.process.owned import Exit


def test_a_bus_error_is_told_as_what_causes_it() -> None:
    running = SimpleNamespace(log_tail=lambda _lines: "", error_code="", oom_kills_before=0)
    told = of_exit(Exit(signal=signal.SIGBUS), running, ready_s=1.0).facts["error"]
    assert "SIGBUS" in told
    assert "replace model files by a rename" in told
    assert "rename" not in of_exit(Exit(signal=signal.SIGSEGV), running, ready_s=1.0).facts["error"]
