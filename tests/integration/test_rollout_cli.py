"""`skep sync` and its sisters as a person runs them: processes, exit codes, JSON, lines that say what to do."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import pytest

from skep.cli.rollout import INTERRUPTED
from skep.cli.rollout_show import show_status
from skep.rollout.report import Drift, Issue, StatusReport
from skep.testkit.hosts.loopback import LoopbackLab

SKEP = Path(sys.executable).with_name("skep")


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Desk:
    """A folder with a skep.toml, and a lab of hosts behind it."""

    def __init__(self, folder: Path, lab: LoopbackLab) -> None:
        self.folder, self.lab = folder, lab

    def declare(self, version: str = "1.0", *, hosts: int = 2, more: str = "") -> None:
        program = self.folder / f"skep {version}"
        program.write_text(f"#!/bin/sh\necho skep {version}\n")
        program.chmod(stat.S_IRWXU)
        text = (
            f'[hive_defaults]\nssh_user = "lab"\nauto_start = false\nidentity_file = "{self.lab.identity}"\n'
        )
        text += f"install = {{ local = {{ path = {json.dumps(program.name)} }} }}\n{more}\n"
        for host in self.lab.hosts[:hosts]:
            text += f'[[hive]]\nalias = "{host.alias}"\nhostname = "127.0.0.1"\nssh_port = {host.port}\ntags = ["rack"]\n'
        (self.folder / "skep.toml").write_text(text)

    async def run(self, *argv: str, known_hosts: bool = True) -> Done:
        process = await self.start(*argv, known_hosts=known_hosts)
        out, err = await process.communicate()
        return Done(process.returncode or 0, out.decode(), err.decode())

    async def start(self, *argv: str, known_hosts: bool = True) -> asyncio.subprocess.Process:
        extra = ["--known-hosts", str(self.lab.known_hosts)] if known_hosts else []
        return await asyncio.create_subprocess_exec(
            str(SKEP),
            *argv,
            *extra,
            cwd=self.folder,
            env={**os.environ, "SKEP_HOME": str(self.folder / "home"), "NO_COLOR": "1", "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    async with LoopbackLab(tmp_path / "lab", hosts=2) as lab:
        yield Desk(tmp_path, lab)


async def test_sync_then_nothing_to_do_then_no_drift(desk: Desk) -> None:
    desk.declare()
    first = await desk.run("sync", "--json")
    assert first.code == 0, first
    report = json.loads(first.out)
    assert report["hives_installed"] == 2
    assert {step["name"] for step in report["hives"][0]["steps"]} >= {
        "send",
        "stage",
        "verify",
        "switch",
        "record",
    }
    assert json.loads((await desk.run("sync", "--json")).out)["hives_already_installed"] == 2
    status = await desk.run("package-status", "--json")
    assert (status.code, json.loads(status.out)["status"]) == (0, "ok")


async def test_drift_is_told_with_exit_1(desk: Desk) -> None:
    desk.declare("1.0")
    await desk.run("sync")
    desk.declare("2.0")
    done = await desk.run("package-status", "--json")
    assert done.code == 1
    assert {(drift["hive"], drift["issue"]) for drift in json.loads(done.out)["drift"]} == {
        ("host-0", "version"),
        ("host-1", "version"),
    }


async def test_a_host_that_is_no_longer_declared_is_extra_until_it_is_removed(desk: Desk) -> None:
    desk.declare(hosts=2)
    await desk.run("sync")
    desk.declare(hosts=1)
    drift = json.loads((await desk.run("package-status", "--json")).out)["drift"]
    assert [(one["hive"], one["issue"]) for one in drift] == [("host-1", "extra_hive")]
    report = json.loads((await desk.run("sync", "--remove-extra", "--json")).out)
    assert report["hives_removed"] == 1
    assert not (desk.lab.hosts[1].home / ".local/share/skep/manifest.json").exists()
    assert (await desk.run("package-status")).code == 0


async def test_a_host_by_a_new_alias_is_not_removed_with_its_old_one(desk: Desk) -> None:
    desk.declare(hosts=1)
    await desk.run("sync")
    path = desk.folder / "skep.toml"
    path.write_text(path.read_text().replace('"host-0"', '"renamed"'))
    assert json.loads((await desk.run("sync", "--remove-extra", "--json")).out)["hives_removed"] == 0
    assert (desk.lab.hosts[0].home / ".local/bin/skep").exists()


async def test_what_another_file_declares_is_not_extra(desk: Desk) -> None:
    desk.declare(hosts=1)
    (desk.folder / "skep.toml").rename(desk.folder / "production.toml")
    assert (await desk.run("sync", "-c", "production.toml")).code == 0
    desk.declare(hosts=2)
    path = desk.folder / "skep.toml"
    head, _, tables = path.read_text().partition("[[hive]]")
    path.write_text(head + "[[hive]]" + tables.partition("[[hive]]")[2])
    report = json.loads((await desk.run("sync", "--remove-extra", "--json")).out)
    assert [row["alias"] for row in report["hives"]] == ["host-1"]
    assert (desk.lab.hosts[0].home / ".local/bin/skep").exists()


async def test_a_host_that_is_gone_for_good_can_be_forgotten(desk: Desk) -> None:
    desk.declare(hosts=2)
    await desk.run("sync")
    desk.declare(hosts=1)
    await desk.lab.hosts[1].aclose()
    wrong = await desk.run("sync", "--forget", "nobody")
    assert (wrong.code, wrong.err) == (
        2,
        "skep: --forget 'nobody' is not remembered; remembered are: host-0, host-1\n",
    )
    assert (await desk.run("sync", "--forget", "host-1")).code == 0
    assert (await desk.run("package-status")).code == 0


async def test_what_is_declared_and_not_there_is_told_beside_the_other_hosts(desk: Desk) -> None:
    desk.declare()
    await desk.run("sync")
    path = desk.folder / "skep.toml"
    path.write_text(path.read_text() + 'install = { local = { path = "none" } }\n')
    done = await desk.run("package-status", "--json")
    report = json.loads(done.out)
    assert (done.code, report["status"]) == (1, "unknown")
    assert [(one["hive"], one["issue"]) for one in report["drift"]] == [("host-1", "undetermined")]


async def test_ctrl_c_ends_with_130_says_how_the_hosts_are_and_the_next_run_finishes(desk: Desk) -> None:
    desk.declare()
    program, begun = desk.folder / "skep 1.0", desk.lab.hosts[0].home / "begun"
    program.write_text('#!/bin/sh\n: > "$HOME/begun"\nsleep 60\n')
    process = await desk.start("sync", "--quiet")
    async with asyncio.timeout(60):
        while not begun.exists():
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (130, f"{INTERRUPTED}\n")
    assert not any((host.home / ".local/bin/skep").exists() for host in desk.lab.hosts)
    desk.declare()
    assert json.loads((await desk.run("sync", "--json")).out)["hives_installed"] == 2


async def test_a_contradiction_is_refused(desk: Desk) -> None:
    desk.declare()
    done = await desk.run("sync", "--rollback", "--force")
    assert done.code == 2
    assert "goes neither" in done.err


def test_a_table_on_a_narrow_terminal_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    detail = "the-configuration-or-the-token-on-the-host-is-not-the-declared-one"
    drift = Drift(hive="a-rather-long-alias", issue=Issue.CONFIG, details=detail)
    show_status(StatusReport(status="drift", drift=(drift,), hives=1))
    rows = [
        line.strip("│").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")
    ]
    whole = ["".join(row[column].strip() for row in rows) for column in range(3)]
    assert whole == [drift.hive, "config", detail]


async def test_an_unreachable_host_is_unknown_and_the_exit_code_says_so(desk: Desk) -> None:
    desk.declare()
    await desk.lab.hosts[0].aclose()
    done = await desk.run("package-status", "--json")
    assert done.code == 1
    assert json.loads(done.out)["drift"][0]["issue"] == "unreachable"


async def test_a_dry_run_shows_the_steps_and_changes_nothing(desk: Desk) -> None:
    desk.declare()
    done = await desk.run("sync", "--dry-run")
    assert done.code == 0
    assert "stage, verify, configure, switch" in done.out
    assert "2 planned, 0 as declared" in done.out
    assert not list(desk.lab.hosts[0].home.iterdir())


async def test_ssh_doctor_tells_each_check_apart(desk: Desk) -> None:
    desk.declare()
    desk.lab.known_hosts.write_text("")
    done = await desk.run("ssh-doctor", "--json")
    assert done.code == 1
    checks = {check["name"]: check["verdict"] for check in json.loads(done.out)[0]["checks"]}
    assert checks["host key"] == "fail"
    assert (await desk.run("ssh-doctor", "--accept-new")).code == 0
    assert (await desk.run("ssh-doctor")).code == 0


async def test_some_hosts_are_picked_by_alias_and_tag_and_a_wrong_name_lists_what_there_is(
    desk: Desk,
) -> None:
    desk.declare()
    one = json.loads((await desk.run("sync", "--hive", "host-1", "--json")).out)
    assert [row["alias"] for row in one["hives"]] == ["host-1"]
    rack = json.loads((await desk.run("sync", "--hive", "tag:rack", "--json")).out)
    assert len(rack["hives"]) == 2
    wrong = await desk.run("sync", "--hive", "nobody")
    assert (wrong.code, wrong.err) == (
        2,
        "skep: --hive 'nobody' names nothing; declared are: host-0, host-1\n",
    )
    assert '"unknown_hive"' in (await desk.run("sync", "--hive", "nobody", "--json")).err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("wrong_field = 1", "skep.toml:6: hive 'host-0': wrong_field is not a field that skep knows"),
        ("ssh_port = 70000", "ssh_port must be 1..65535"),
        ('workers = [{ type = "llama-cpp", features = ["warp"] }]', "no feature 'warp'"),
        ("[[hive]]", "skep.toml:6: hive 'number 1': needs alias"),
        ("= nonsense", "skep.toml:6: Invalid statement"),
    ],
)
async def test_a_wrong_file_is_one_line_with_exit_2(desk: Desk, more: str, says: str) -> None:
    desk.declare(more=more, hosts=1)
    text = (desk.folder / "skep.toml").read_text()
    if "ssh_port = 7" in more:
        (desk.folder / "skep.toml").write_text(text.replace(f"ssh_port = {desk.lab.hosts[0].port}\n", ""))
    done = await desk.run("validate", known_hosts=False)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


async def test_a_missing_file_is_one_line_with_exit_2(desk: Desk) -> None:
    done = await desk.run("sync", "--config", "none.toml")
    assert (done.code, done.err) == (2, "skep: none.toml: no such file. Give one with --config\n")
