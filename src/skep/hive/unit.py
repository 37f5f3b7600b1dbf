"""The systemd unit of a hive: as text, and where it goes."""

from pathlib import Path

import msgspec

SYSTEM_FOLDER = Path("/etc/systemd/system")
NAME = "skep-hive.service"


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit file, its place, and the commands that make it run, and that end it before the file is removed."""

    path: Path
    text: str
    commands: tuple[tuple[str, ...], ...]
    end_commands: tuple[tuple[str, ...], ...]


def make_unit(
    *, program: Path, config: Path | None, is_system: bool, user_config: Path, user: str, home: str = ""
) -> Unit:
    """Return the unit. `user_config` is where the user's systemd looks; `home` the SKEP_HOME that the hive keeps to.

    `KillMode=process`: when the hive itself is killed, its workers live on, and the restarted hive adopts them. A hive
    that is stopped ends its workers by itself, so `TimeoutStopSec` gives it time to.
    """
    arguments = [str(program), "hive", *(["--config", str(config.absolute())] if config else [])]
    lines = [
        "[Unit]",
        "Description=skep hive: pools of model workers on this machine",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(_quoted(one) for one in arguments)}",
        "Restart=always",
        "RestartSec=1",
        "KillMode=process",
        "TimeoutStopSec=15",
        "LimitNOFILE=65536",
        "OOMPolicy=continue",
        "Environment=PYTHONUNBUFFERED=1",
        *([f"Environment={_quoted(f'SKEP_HOME={home}').replace('$$', '$')}"] if home else []),
        *(
            ["RuntimeDirectory=skep", "RuntimeDirectoryMode=0700", "RuntimeDirectoryPreserve=yes"]
            if is_system
            else []
        ),
        *(["StateDirectory=skep", "StateDirectoryMode=0700"] if is_system else []),
        *(["Environment=XDG_RUNTIME_DIR=/run", "Environment=XDG_STATE_HOME=/var/lib"] if is_system else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if is_system else 'default.target'}",
        "",
    ]
    control = controller(is_system=is_system)
    commands: tuple[tuple[str, ...], ...] = ((*control, "daemon-reload"), (*control, "enable", "--now", NAME))
    if not is_system:
        commands = (("loginctl", "enable-linger", user), *commands)
    folder = SYSTEM_FOLDER if is_system else user_config / "systemd" / "user"
    return Unit(
        path=folder / NAME,
        text="\n".join(lines),
        commands=commands,
        end_commands=((*control, "disable", "--now", NAME),),
    )


def controller(*, is_system: bool) -> tuple[str, ...]:
    """Return the command that speaks to the machine's systemd, or to the user's."""
    return ("systemctl",) if is_system else ("systemctl", "--user")


def is_lingering(user: str, *, folder: Path = Path("/var/lib/systemd/linger")) -> bool:
    """True when the user's services run without a login; otherwise a user unit ends at logout."""
    return (folder / user).exists()


def _quoted(argument: str) -> str:
    """Quote for ExecStart (systemd.service(5)): percent and dollar are special there."""
    text = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(one.isspace() or one in "\"'\\;" for one in argument) else text
