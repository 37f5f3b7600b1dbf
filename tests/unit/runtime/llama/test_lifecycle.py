import gc
import os
import warnings

import pytest

from skep.errors.runtime import Closed, DecodeFailed
from skep.runtime.llama.lifecycle import Native, NativeState


class Thing(Native):
    _noun = "thing"

    def __init__(self) -> None:
        super().__init__()
        self.released = 0

    def use(self) -> None:
        if not self.is_open:
            raise self._refusal()

    def spoil(self) -> None:
        self._state, self._why = NativeState.SPOILED, "it broke"

    def _release(self) -> None:
        self.released += 1


def test_closing_twice_releases_once_and_use_afterwards_is_typed() -> None:
    thing = Thing()
    thing.use()
    thing.close()
    thing.close()
    assert thing.released == 1
    with pytest.raises(Closed, match="thing is closed"):
        thing.use()


def test_a_context_manager_closes() -> None:
    with Thing() as thing:
        thing.use()
    assert thing.released == 1


def test_a_spoiled_one_says_why_and_still_closes() -> None:
    thing = Thing()
    thing.spoil()
    with pytest.raises(DecodeFailed, match="it broke"):
        thing.use()
    thing.close()
    assert thing.released == 1


def test_a_leak_warns_and_is_released() -> None:
    released = []
    thing = Thing()
    thing._release = lambda: released.append(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del thing
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert released == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_is_refused_and_frees_nothing() -> None:
    with Thing() as thing:
        read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Newer Pythons warn of threads at a fork.
            pid = os.fork()
        if not pid:
            try:
                thing.use()
            except Closed as error:
                thing.close()
                os.write(write_end, f"{error} released={thing.released}".encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as reader:
            text = reader.read()
        os.waitpid(pid, 0)
        assert "before a fork" in text
        assert text.endswith("released=0")
        thing.use()
