"""From nothing to an answer: hosts with real sshd, hives that register, a chat request that one of them serves."""

import asyncio
import json
import os
import secrets
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from skep.rollout.report import HostOutcome
from skep.spec.host import HiveHost, Install, LocalInstall
from skep.testkit.hosts.netns import NetnsLab, missing
from skep.testkit.rollout import RolloutHarness, assert_hive_installed

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing() or "can run")]

POOL = """
[[model]]
name = "demo"
ref = "fake:demo"
[[pool]]
id = "pool-0"
model = "demo"
backend = "fake"
devices = "cpu"
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[NetnsLab]:
    async with NetnsLab(tmp_path / "lab", hosts=3) as lab:
        yield lab


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "queen.token"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


@pytest.fixture
async def queen(lab: NetnsLab, tmp_path: Path, token_file: Path) -> AsyncGenerator[dict[str, str]]:
    read_fd, write_fd = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "skep.cli.main", "queen", "--bind", "127.0.0.1:0", "--admin-bind", f"{lab.gateway}:0",
        "--token-file", str(token_file), "--report-fd", str(write_fd),
        pass_fds=(write_fd,), env={**os.environ, "SKEP_HOME": str(tmp_path / "queen")},
    )  # fmt: skip
    os.close(write_fd)
    with os.fdopen(read_fd) as report:
        ready = json.loads(await asyncio.to_thread(report.readline))
    yield ready
    process.terminate()
    await process.wait()


def skep_of_this_checkout(tmp_path: Path, release: str = "one") -> Install:
    path = tmp_path / f"skep-{release}"
    path.write_text(f'#!/bin/sh\n# {release}\nexec "{sys.executable}" -m skep.cli.main "$@"\n')
    path.chmod(stat.S_IRWXU)
    return Install(local=LocalInstall(path=str(path)))


async def served(client: aiohttp.ClientSession, gateway: str) -> list[str]:
    async with client.get(f"{gateway}/v1/models") as answer:
        return [model["id"] for model in (await answer.json())["data"]]


@pytest.mark.timeout(240)
async def test_hosts_become_a_fleet_that_answers(
    lab: NetnsLab, queen: dict[str, str], tmp_path: Path, token_file: Path
) -> None:
    harness = RolloutHarness(lab, tmp_path)
    hosts: list[HiveHost] = [
        host.hive(
            skep_of_this_checkout(tmp_path),
            queen=queen["admin"],
            queen_token_file=str(token_file),
            config=POOL,
        )
        for host in lab.hosts
    ]
    first = await harness.sync(hosts)
    assert [row.status for row in first.hives] == [HostOutcome.INSTALLED] * 3, first
    for host in hosts:
        await assert_hive_installed(harness, host)
    headers = {"Authorization": f"Bearer {token_file.read_text()}"}
    async with aiohttp.ClientSession(headers=headers) as client, asyncio.timeout(60):
        while await nodes_alive(client, queen["admin"]) < 3 or "demo" not in await served(
            client, queen["gateway"]
        ):
            await asyncio.sleep(0.1)
        assert await ask(client, queen["gateway"]) == 200
        assert [row.status for row in (await harness.sync(hosts)).hives] == [HostOutcome.ALREADY] * 3
        await upgrade_under_load(client, queen["gateway"], harness, hosts, tmp_path)


async def upgrade_under_load(
    client: aiohttp.ClientSession, gateway: str, harness: RolloutHarness, hosts: list[HiveHost], folder: Path
) -> None:
    """Roll all hosts to another version while requests come: not one may be lost."""
    answers: list[int] = []
    is_over = asyncio.Event()

    async def asking() -> None:
        while not is_over.is_set():
            answers.append(await ask(client, gateway))
            await asyncio.sleep(0.05)

    new = skep_of_this_checkout(folder, "two")
    async with asyncio.TaskGroup() as group:
        group.create_task(asking())
        report = await harness.sync([msgspec.structs.replace(host, install=new) for host in hosts])
        is_over.set()
    assert [row.status for row in report.hives] == [HostOutcome.UPGRADED] * 3, report
    assert {"drain", "gate", "resume"} <= {step.name for step in report.hives[0].steps}
    assert set(answers) == {200}, answers
    assert len(answers) > len(hosts), "requests came all the while"


async def ask(client: aiohttp.ClientSession, gateway: str) -> int:
    """Send one chat request; return its status, after holding that an answer is one."""
    body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    async with client.post(f"{gateway}/v1/chat/completions", json=body) as answer:
        told = await answer.json()
        assert answer.status != 200 or told["choices"][0]["message"]["content"]
        return answer.status


async def nodes_alive(client: aiohttp.ClientSession, admin: str) -> int:
    async with client.get(f"{admin}/v2/nodes") as answer:
        found = await answer.json()
    nodes = found["nodes"] if isinstance(found, dict) else found
    return sum(node["state"] == "alive" for node in nodes)
