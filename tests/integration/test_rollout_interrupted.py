"""Whatever is killed, and whenever: a host has a whole old or a whole new version, and the next run finishes the work."""

import asyncio
import contextlib
import os
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from skep.errors import SkepError
from skep.rollout.report import HostOutcome, SyncReport
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import Install, LocalInstall
from skep.testkit.hosts.loopback import LoopbackLab

STEPS = ("send", "stage", "verify", "configure", "switch", "service", "gate", "record")
WAYS = ("cut", "crash", "kill")
SOAK_RUNS, SOAK_AT_ONCE = 500, 6
# A skep that serves: `hive` answers on its port until it is told to end.
PROGRAM = """#!/usr/bin/env python3
import http.server, json, re, signal, sys
if "--version" in sys.argv:
    print("skep {version}")
elif sys.argv[1:2] == ["hive"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    text = open(sys.argv[sys.argv.index("--config") + 1]).read()
    port = int(re.search(r'bind = ".*:(\\d+)"', text)[1])
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
        def log_message(self, *_): pass
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


def program(folder: Path, version: str) -> Install:
    path = folder / f"skep-{version}"
    if not path.exists():  # The soak's runs share it.
        path.write_text(PROGRAM.format(version=version))
        path.chmod(stat.S_IRWXU)
    return Install(local=LocalInstall(path=str(path)))


def version_of(lab: LoopbackLab) -> str:
    """Return what the host's skep says it is; a broken one fails the test."""
    link = lab.hosts[0].home / ".local/bin/skep"
    if not link.is_symlink():
        return ""
    folder = (lab.hosts[0].home / ".local/share/skep/current").resolve()
    assert (folder / ".complete").exists(), f"current names {folder.name}, which is not whole"
    return subprocess.run([link, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]


async def sync(
    lab: LoopbackLab, tmp_path: Path, install: Install, port: int, *, retries: bool = True
) -> SyncReport:
    async def no_pause(_: float) -> None:
        if not retries:
            raise Interrupted("stop retrying")

    settings = Settings(base=tmp_path, cache=tmp_path / "cache")
    connector = SshConnector(known_hosts=lab.known_hosts, identities=(lab.identity,), agent=False)
    host = lab.hosts[0].hive(install, hive_port=port)
    return await Sync(connector, settings, sleep=no_pause).run([host])


class Interrupted(SkepError):
    """The test's own end of a run."""


class Blow:
    """Strikes once, `delay_s` after the host says that it begins `step`.

    `how`: cut (the connection is gone), crash (every process of the host is killed), kill (our own `skep sync` is).
    """

    def __init__(self, lab: LoopbackLab, step: str, how: str, delay_s: float) -> None:
        self._lab, self._step, self._how, self._delay_s = lab, step, how, delay_s
        self.is_armed = False
        self.victim: asyncio.subprocess.Process | None = None
        self._struck = asyncio.Event()

    def on_output(self, data: bytes) -> None:
        if f" begin {self._step}\n".encode() in data and not self.is_armed:
            self.is_armed = True
            asyncio.get_running_loop().call_later(self._delay_s, self._strike)

    def _strike(self) -> None:
        if self._how == "kill":
            assert self.victim is not None
            with contextlib.suppress(ProcessLookupError):
                self.victim.kill()
        else:
            if self._how == "crash":
                self._lab.crash()
            self._lab.hosts[0].cut()
        self._struck.set()

    async def over(self) -> None:
        """Wait for a blow that is still to fall, so that it does not fall on the next run."""
        if self.is_armed:
            await self._struck.wait()


async def sync_process(lab: LoopbackLab, tmp_path: Path, install: Install, port: int, blow: Blow) -> None:
    """Run `skep sync` as people do, until it ends or is killed; on the host nothing of it is left before this returns."""
    assert install.local is not None
    folder = lab.folder / "desk"
    folder.mkdir(exist_ok=True)
    (folder / "skep.toml").write_text(
        f'[[hive]]\nalias = "host-0"\nhostname = "127.0.0.1"\nssh_port = {lab.hosts[0].port}\nssh_user = "lab"\n'
        f'hive_port = {port}\nidentity_file = "{lab.identity}"\ninstall = {{ local = {{ path = "{install.local.path}" }} }}\n'
    )
    blow.victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skep.cli.main", "sync", "-q", "-c", str(folder / "skep.toml")),
        *("--known-hosts", str(lab.known_hosts)),
        env={**os.environ, "SKEP_HOME": str(folder / "home")},
        stdout=asyncio.subprocess.DEVNULL,
    )
    await blow.victim.wait()


async def one_run(tmp_path: Path, seed: int, step: str, ways: tuple[str, ...] = WAYS) -> None:
    dice = random.Random(seed)
    how, delay_s = dice.choice(ways), dice.choice([0.0, dice.uniform(0, 0.05)])
    port = free_port()
    async with LoopbackLab(tmp_path / f"lab-{seed}", hosts=1) as lab:
        upgrade = dice.random() < 0.7
        if upgrade:
            assert (await sync(lab, tmp_path, program(tmp_path, "1.0"), port)).is_success
        host, blow = lab.hosts[0], Blow(lab, step, how, delay_s)
        host.on_output = blow.on_output
        new = program(tmp_path, "2.0")
        if how == "kill":
            await sync_process(lab, tmp_path, new, port, blow)
        else:
            await _ignoring(sync(lab, tmp_path, new, port, retries=False))
        await blow.over()
        assert blow.is_armed, f"nothing was struck at {step}"
        host.on_output = lambda _: None
        assert version_of(lab) in ({"1.0", "2.0"} if upgrade else {"", "2.0"}), f"{step} {how} seed {seed}"
        report = await sync(lab, tmp_path, new, port)
        assert report.is_success, f"{step} {how} {delay_s} seed {seed}: {report.hives[0].error}"
        assert version_of(lab) == "2.0"
        again = await sync(lab, tmp_path, new, port)
        assert again.hives[0].status is HostOutcome.ALREADY, f"{step} {how} seed {seed}: {again.hives[0]}"
        assert host_is_clean(lab), "a half version or a stray upload was left"


async def _ignoring(running) -> None:
    try:
        await running
    except* Interrupted:
        pass


def host_is_clean(lab: LoopbackLab) -> bool:
    share = lab.hosts[0].home / ".local/share/skep"
    whole = [folder for folder in (share / "versions").iterdir() if (folder / ".complete").exists()]
    return len(whole) <= 2 and not list(share.glob("*.new"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("step", STEPS)
async def test_a_host_is_whole_after_a_blow_in_any_step(tmp_path: Path, step: str) -> None:
    await one_run(tmp_path, seed=STEPS.index(step), step=step, ways=("cut", "crash"))


async def test_a_host_is_whole_after_skep_sync_itself_was_killed(tmp_path: Path) -> None:
    await one_run(tmp_path, seed=1, step="stage", ways=("kill",))


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_a_host_is_whole_after_500_seeded_blows(tmp_path: Path) -> None:
    bound = asyncio.Semaphore(SOAK_AT_ONCE)

    async def one(seed: int) -> None:
        async with bound:
            await one_run(tmp_path, seed=seed, step=STEPS[seed % len(STEPS)])

    async with asyncio.TaskGroup() as group:
        for seed in range(SOAK_RUNS):
            group.create_task(one(seed))


async def test_the_steps_struck_are_all_the_steps_that_the_code_has(tmp_path: Path) -> None:
    port = free_port()
    async with LoopbackLab(tmp_path / "lab", hosts=1) as lab:
        report = await sync(lab, tmp_path, program(tmp_path, "1.0"), port)
        assert tuple(step.name for step in report.hives[0].steps) == STEPS


async def test_two_syncs_of_one_host_exclude_each_other(tmp_path: Path) -> None:
    port = free_port()
    async with LoopbackLab(tmp_path / "lab", hosts=1) as lab:
        one, two = await asyncio.gather(
            sync(lab, tmp_path, program(tmp_path, "1.0"), port),
            sync(lab, tmp_path, program(tmp_path, "1.0"), port),
        )
        outcomes = sorted([one.hives[0].status, two.hives[0].status])
        codes = {one.hives[0].error_code, two.hives[0].error_code} - {""}
        assert HostOutcome.INSTALLED in outcomes
        assert codes <= {"host_busy"}
        assert version_of(lab) == "1.0"


async def test_a_started_hive_outlives_the_sync_and_does_not_hold_its_lock(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with LoopbackLab(tmp_path / "lab", hosts=1) as lab:
        assert (await sync(lab, tmp_path, program(tmp_path, "1.0"), port)).is_success
        assert (await sync(lab, tmp_path, program(tmp_path, "2.0"), port)).hives[
            0
        ].status is HostOutcome.UPGRADED
        assert lab.survivors(), "the hive runs"
