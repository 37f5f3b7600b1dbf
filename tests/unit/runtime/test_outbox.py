"""Events between the engine's thread and a reader: nothing lost, one wake-up for many jobs."""

import asyncio
import threading

import pytest

from skep.errors.runtime import Cancelled
from skep.runtime.outbox import Outbox, wake
from skep.runtime.request import Failed, Started, Token

END = Failed(error=Cancelled(), tokens_out=0)


def token(index: int) -> Token:
    return Token(text="x", index=index)


async def test_a_waiting_reader_is_woken_from_another_thread() -> None:
    outbox = Outbox(8, lambda: None)

    def produce() -> None:
        while outbox.waiter is None:
            pass
        outbox.put(token(0))
        wake([outbox])

    thread = threading.Thread(target=produce)
    thread.start()
    await outbox.wait()
    assert outbox.take() == [token(0)]
    thread.join()


async def test_many_readers_of_one_loop_cost_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [Outbox(8, lambda: None) for _ in range(20)]
    waiting = [asyncio.ensure_future(box.wait()) for box in boxes]
    await asyncio.sleep(0)
    loop, calls = asyncio.get_running_loop(), []
    real = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (calls.append(1), real(*args)))
    for box in boxes:
        box.put(token(0))
    wake(boxes)
    await asyncio.gather(*waiting)
    assert len(calls) == 1


async def test_a_reader_that_was_cancelled_or_whose_loop_is_closed_does_no_harm() -> None:
    outbox = Outbox(8, lambda: None)
    waiting = asyncio.ensure_future(outbox.wait())
    await asyncio.sleep(0)
    waiter = outbox.waiter
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    outbox.waiter = waiter
    wake([outbox])
    closed = asyncio.new_event_loop()
    outbox.waiter = (closed, closed.create_future())
    closed.close()
    wake([outbox])


def test_after_the_terminal_event_waiting_returns_at_once() -> None:
    outbox = Outbox(8, lambda: None)
    outbox.put(Started(seed=1, prompt_tokens=1, cached_tokens=0))
    outbox.put(END)
    assert outbox.take()[-1] is END
    outbox.wait_blocking()
    assert outbox.is_read_out
    assert outbox.take() == []


def test_room_is_told_once_half_of_it_is_read_and_only_to_a_paused_producer() -> None:
    told: list[int] = []
    outbox = Outbox(4, lambda: told.append(len(outbox)))
    for index in range(4):
        outbox.put(token(index))
    assert outbox.is_full
    outbox.take_one()
    outbox.take_one()
    assert told == []
    outbox.put(token(4))
    outbox.put(token(5))
    outbox.is_paused = True
    outbox.take_one()
    outbox.take_one()
    assert told == [2]
