"""`skep hive install` and `uninstall`, with a systemctl that writes down what it is told."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skep.cli.hive import hive
from skep.errors import SkepError
from skep.hive import service, unit


class Machine:
    def __init__(self, folder: Path) -> None:
        self.told = folder / "told"
        self.unit = folder / "system" / unit.NAME

    def commands(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []

    def skep(self, *argv: str) -> tuple[str, bool]:
        result = CliRunner().invoke(hive, argv)
        assert result.exception is None or isinstance(result.exception, (SkepError, SystemExit))
        return f"{result.output}{result.exception or ''}", result.exception is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that systemd runs, with folders of its own."""
    programs, booted = tmp_path / "bin", tmp_path / "booted"
    programs.mkdir()
    booted.mkdir()
    for name in ("systemctl", "loginctl"):
        script = programs / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/told\n[ ! -e {tmp_path}/broken ] || {{ echo no bus >&2; exit 1; }}\n'
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("SKEP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(service, "SYSTEMD", booted)
    monkeypatch.setattr(unit, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path)


def test_install_now_writes_the_unit_and_starts_it_and_uninstall_undoes_both(machine: Machine) -> None:
    told, is_done = machine.skep("install", "--system", "--now")
    assert is_done, told
    assert "KillMode=process" in machine.unit.read_text()
    assert machine.commands() == ["systemctl daemon-reload", "systemctl enable --now skep-hive.service"]
    told, is_done = machine.skep("uninstall", "--system")
    assert is_done, told
    assert not machine.unit.exists()
    assert machine.commands()[2:] == ["systemctl disable --now skep-hive.service", "systemctl daemon-reload"]
    assert "there is no" in machine.skep("uninstall", "--system")[0]


def test_a_users_service_lingers_so_that_it_outlives_the_login(machine: Machine, tmp_path: Path) -> None:
    told, is_done = machine.skep("install", "--user", "--now")
    assert is_done, told
    assert machine.commands()[0].startswith("loginctl enable-linger")
    assert machine.commands()[1:] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now skep-hive.service",
    ]
    unit_file = tmp_path / "config" / "systemd" / "user" / "skep-hive.service"
    assert f"Environment=SKEP_HOME={tmp_path}/home\n" in unit_file.read_text()


def test_without_now_nothing_is_run_and_the_commands_are_told(machine: Machine) -> None:
    told, _ = machine.skep("install", "--system")
    assert "systemctl enable --now skep-hive.service" in told
    assert machine.unit.exists()
    assert machine.commands() == []


def test_a_dry_run_touches_nothing(machine: Machine) -> None:
    told, _ = machine.skep("install", "--system", "--now", "--dry-run")
    assert "ExecStart=" in told
    assert not machine.unit.exists()
    assert machine.commands() == []


def test_where_there_is_no_systemd_it_says_what_to_do_instead(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "booted").rmdir()
    told, is_done = machine.skep("install", "--system", "--now")
    assert not is_done
    assert "systemd does not run this machine: start `skep hive`" in told
    assert not machine.unit.exists()
    assert "systemd does not run" in machine.skep("install", "--system")[0]
    assert machine.skep("uninstall", "--system")[1]
    assert machine.commands() == []


def test_what_systemctl_says_is_told_in_one_line(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    told, is_done = machine.skep("install", "--system", "--now")
    assert not is_done
    assert "`systemctl daemon-reload` failed with 1: no bus" in told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's tools")
@pytest.mark.parametrize("is_system", [True, False])
def test_systemd_itself_finds_nothing_wrong_with_the_unit(is_system: bool, tmp_path: Path) -> None:
    made = unit.make_unit(
        program=Path(sys.executable),
        config=tmp_path / "a b.toml",
        is_system=is_system,
        user_config=tmp_path,
        user="u",
        home=str(tmp_path / "h $x 100%"),
    )
    path = tmp_path / unit.NAME
    path.write_text(made.text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.NAME in line]) == (0, [])
