"""Which replica, when, and why not: unknown, loading, sleeping, full, pinned."""

import asyncio
import json

import pytest
from tests.integration.gateway.conftest import Upstream, error, plain, split

from skep.policy.placement import BLOCK_BYTES


async def test_an_unknown_model_is_404_and_names_what_is_served(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.post(b'{"model":"nope","prompt":"x"}')
    assert split(answer)[0] == 404
    assert error(answer)["code"] == "model_not_found"
    assert error(answer)["param"] == "model"
    assert "served here: m" in error(answer)["message"]


@pytest.mark.parametrize("state", ["declared", "provisioning", "starting", "reloading", "ready"])
async def test_a_pool_that_is_loading_is_waited_for(rig, state):
    rig.serve(state=state)
    asked = asyncio.create_task(rig.post())
    while not rig.dispatcher.waiting:
        await asyncio.sleep(0)
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await asked)[0] == 200


async def test_waiting_for_a_load_ends_with_its_progress(rig):
    rig.serve(state="provisioning", progress=0.25, last_error="still copying")
    answer = await rig.post()
    assert split(answer)[0] == 503
    assert b"retry-after:" in split(answer)[1]
    assert error(answer)["code"] == "model_loading"
    assert error(answer)["loading"]["pools"][0]["progress"] == 0.25


async def test_a_pool_that_is_down_is_refused_at_once_with_its_cause(rig):
    rig.serve(state="unready", last_error="the model does not fit")
    answer = await rig.post()
    assert split(answer)[0] == 503
    assert error(answer)["code"] == "pool_down"
    assert "does not fit" in error(answer)["message"]


async def test_a_sleeping_pool_is_woken(rig):
    rig.serve(state="idle", loads_on_demand=True)
    asked = asyncio.create_task(rig.post())
    while not rig.woken:
        await asyncio.sleep(0)
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await asked)[0] == 200
    assert rig.woken[0].model == "m"


async def test_a_full_queue_is_429_with_retry_after(rig):
    held = asyncio.Event()

    async def script(up, reader, writer, body):
        await held.wait()
        await plain(up, reader, writer, body)

    async with Upstream(script) as up:
        rig.serve(up, slots=1)
        waiting = [asyncio.create_task(rig.post()) for _ in range(4)]
        while len(up.bodies) < 2 or rig.dispatcher.waiting < 2:
            await asyncio.sleep(0)
        answer = await rig.post()
        assert split(answer)[0] == 429
        assert b"retry-after:" in split(answer)[1]
        assert error(answer)["type"] == "rate_limit_error"
        held.set()
        assert [split(await one)[0] for one in waiting] == [200] * 4


async def test_why_is_told_on_request(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        assert b"x-skep-why" not in split(await rig.post())[1]
        assert b"x-skep-why: rule=two_choices" in split(await rig.post(extra=b"x-skep-why: 1\r\n"))[1]


async def test_one_prefix_stays_on_one_replica(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        body = json.dumps({"model": "m", "prompt": "x" * BLOCK_BYTES * 2}).encode()
        for _ in range(8):
            await rig.post(body)
        assert sorted((len(one.bodies), len(other.bodies))) == [0, 8]


async def test_a_session_stays_on_one_replica(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        for _ in range(8):
            await rig.post(extra=b"x-skep-session: me\r\n")
        assert sorted((len(one.bodies), len(other.bodies))) == [0, 8]
