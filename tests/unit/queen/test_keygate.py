"""Keys at the gate: who, how much, how often."""

import pytest

from skep.errors import InvalidInput
from skep.errors.queen import InvalidKey, KeyForbidden, KeyUnknown, RateLimited
from skep.errors.store import StoreUnavailable
from skep.queen import keys
from skep.queen.gate import asked_priority
from skep.queen.keygate import KeyGate
from skep.queen.keys import Limits, NewKey, Usage
from skep.queen.outcome import Outcome
from skep.store.sqlite import SqliteStore


class Time:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def store(tmp_path):
    async with SqliteStore(tmp_path / "s.db") as made:
        yield made


async def gate_with(store, time, **new) -> tuple[KeyGate, str]:
    text, _ = await keys.create(store, NewKey(name="x", **new), now_s=time.now_s)
    gate = KeyGate(allow_anonymous=True, clock=time, now=time)
    gate.set_keys(await keys.listed(store))
    return gate, text


def used(tokens_in: int = 0, tokens_out: int = 0, events: int = 0) -> Outcome:
    return Outcome(
        started_s=0, model="m", streamed=False, tokens_in=tokens_in, tokens_out=tokens_out, events=events
    )


async def test_without_keys_loopback_is_open_and_anything_else_is_not():
    assert KeyGate(allow_anonymous=True).visitor("whatever").key_id == ""
    with pytest.raises(InvalidKey, match="missing"):
        KeyGate(allow_anonymous=False).visitor("")


async def test_a_key_is_known_by_its_hash_and_no_other_opens(store, time):
    gate, text = await gate_with(store, time)
    assert gate.visitor(text).key_id == keys.key_id_of(text)
    stored = b"".join(item.value for item in (await store.list("")).items)
    assert text.encode() not in stored
    for wrong in ("", "sk-other", text[:-1], text[:-1] + ("A" if text[-1] != "A" else "B"), text + "x"):
        with pytest.raises(InvalidKey):
            gate.visitor(wrong)


async def test_an_expired_key_is_refused(store, time):
    gate, text = await gate_with(store, time, expires_at=1500.0)
    gate.visitor(text)
    time.now_s = 1500.0
    with pytest.raises(InvalidKey, match="expired"):
        gate.visitor(text)
    with pytest.raises(InvalidInput):
        await keys.create(store, NewKey(name="x", expires_at=1.0), now_s=2.0)


async def test_a_key_keeps_to_its_models(store, time):
    gate, text = await gate_with(store, time, models=("m",))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    with pytest.raises(KeyForbidden):
        gate.enter(visitor, "other")


async def test_requests_a_minute_refill_evenly(store, time):
    gate, text = await gate_with(store, time, limits=Limits(requests_per_minute=2))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    gate.enter(visitor, "m")
    with pytest.raises(RateLimited) as refused:
        gate.enter(visitor, "m")
    assert (refused.value.limit, round(refused.value.retry_after_s)) == ("requests_per_minute", 30)
    time.now_s += 30
    gate.enter(visitor, "m")


async def test_tokens_are_paid_after_and_a_debt_is_waited_off(store, time):
    gate, text = await gate_with(store, time, limits=Limits(tokens_per_minute=60))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    gate.leave(visitor, used(tokens_in=100, tokens_out=20))
    with pytest.raises(RateLimited) as refused:
        gate.enter(visitor, "m")
    assert round(refused.value.retry_after_s) == 61
    time.now_s += 61
    gate.enter(visitor, "m")


async def test_concurrency_is_counted_out_however_a_request_ends(store, time):
    gate, text = await gate_with(store, time, limits=Limits(concurrency=1))
    visitor = gate.visitor(text)
    for _ in range(3):
        gate.enter(visitor, "m")
        with pytest.raises(RateLimited):
            gate.enter(visitor, "m")
        gate.leave(visitor, used())
    gate.enter(visitor, "m")
    gate.set_keys(await keys.listed(store))
    with pytest.raises(RateLimited):
        gate.enter(visitor, "m")


async def test_a_refused_request_is_not_counted(store, time):
    gate, text = await gate_with(store, time, limits=Limits(requests_per_minute=1, concurrency=1))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    for _ in range(5):
        with pytest.raises(RateLimited, match="under way"):
            gate.enter(visitor, "m")
    gate.leave(visitor, used())


async def test_all_tokens_used_up_is_told(store, time):
    gate, text = await gate_with(store, time, limits=Limits(tokens_total=10))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    gate.leave(visitor, used(events=10))
    with pytest.raises(RateLimited, match="all of its 10 tokens"):
        gate.enter(visitor, "m")


async def test_usage_reaches_the_store_and_survives_one_that_is_away(store, time, monkeypatch):
    gate, text = await gate_with(store, time)
    visitor = gate.visitor(text)
    for _ in range(3):
        gate.enter(visitor, "m")
        gate.leave(visitor, used(tokens_in=5, tokens_out=7))
    with monkeypatch.context() as patch:

        async def away(key):
            raise StoreUnavailable

        patch.setattr(store, "get", away)
        with pytest.raises(StoreUnavailable):
            await gate.flush(store)
    gate.enter(visitor, "m")
    gate.leave(visitor, used(tokens_in=1, tokens_out=1))
    await gate.flush(store)
    await gate.flush(store)
    ((_, counted),) = await keys.listed(store)
    assert counted == Usage(requests=4, tokens_in=16, tokens_out=22, last_at=1000.0)


async def test_a_revoked_key_takes_its_counts_along_and_revoking_twice_says_so(store, time):
    gate, text = await gate_with(store, time)
    key_id = keys.key_id_of(text)
    assert await keys.add_usage(store, key_id, Usage(requests=1))
    await keys.revoke(store, key_id)
    assert not await keys.add_usage(store, key_id, Usage(requests=1))
    assert (await store.list("")).items == ()
    with pytest.raises(KeyUnknown):
        await keys.revoke(store, key_id)
    gate.set_keys(await keys.listed(store))
    assert gate.is_open


@pytest.mark.parametrize(
    ("header", "priority"),
    [(b"", 5), (b"3", 3), (b"9", 5), (b"-7", -7), (b"x", 5), (b"99999999", 5), (b"1e9", 5)],
)
async def test_a_request_may_lower_its_priority_but_not_raise_it(store, time, header, priority):
    gate, text = await gate_with(store, time, priority=5)
    assert asked_priority(gate.visitor(text), header) == priority


async def test_the_queens_own_token_opens_and_is_not_counted(store, time):
    gate, _ = await gate_with(store, time)
    gate.add_internal("internal", "dashboard")
    visitor = gate.visitor("internal")
    gate.enter(visitor, "m")
    gate.leave(visitor, used())
    await gate.flush(store)
    assert (await store.list("usage/")).items == ()


async def test_what_other_queens_counted_comes_on_top_of_what_waits_here(store, time):
    gate, text = await gate_with(store, time, limits=Limits(tokens_total=100))
    visitor = gate.visitor(text)
    gate.enter(visitor, "m")
    gate.leave(visitor, used(tokens_in=10))
    gate.set_used(visitor.key_id, Usage(tokens_in=80))
    gate.enter(visitor, "m")
    gate.leave(visitor, used(tokens_in=10))
    with pytest.raises(RateLimited, match="all of its"):
        gate.enter(visitor, "m")
