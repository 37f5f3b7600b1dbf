"""How this hive runs: what the configuration, flags and environment came to."""

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skep.errors import InvalidConfig
from skep.errors.hive import UnsafeBind
from skep.policy import restart, starting
from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import BreakerLimits
from skep.policy.restart import RestartLimits
from skep.policy.starting import StartLimits
from skep.policy.storm import StormLimits
from skep.spec.config import Config, FakeDeviceConfig, RestartsConfig
from skep.spec.engine import EngineSpec
from skep.spec.folders import Folders, provisioned
from skep.spec.ids import check_id
from skep.spec.model import ModelSpec
from skep.spec.pool import PoolSpec
from skep.web.auth import require_token_off_loopback

GRACE_S = 5.0
SHUTDOWN_GRACE_S = 3.0
TOKEN_CHARS_MIN = 16


class HiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a hive needs to know before it starts. `instance` is new with each start."""

    node_id: str
    host: str
    port: int
    runtime: Path
    state: Path
    engines_root: Path
    models_root: Path
    instance: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))
    address: str = ""
    token: str | None = None
    certificate: tuple[str, str] | None = None
    tls_ca: str = ""
    queen: str = ""
    queen_token: str | None = None
    probe_interval_s: float = 10.0
    discover_interval_s: float = 10.0
    inference_probe: bool = False
    worker_host: str = "127.0.0.1"
    allow: frozenset[str] = frozenset({"download", "build", "package"})
    model_folders: tuple[Path, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    engines: tuple[EngineSpec, ...] = ()
    pools: tuple[PoolSpec, ...] = ()
    fake_devices: tuple[FakeDeviceConfig, ...] = ()
    restart: RestartLimits = restart.DEFAULT
    start: StartLimits = starting.DEFAULT
    grace_s: float = GRACE_S
    provision_parallel: int = 4

    @property
    def scheme(self) -> str:
        """https with a certificate, else http."""
        return "https" if self.certificate else "http"


def from_config(
    config: Config, folders: Folders, *, environment: Mapping[str, str] | None = None
) -> HiveSettings:
    """Return the settings. Raises: InvalidConfig (UnsafeBind for an open address without a token)."""
    hive = config.hive_daemon
    host, port = split_address(hive.bind)
    token = read_token(hive.token_file, environment or {})
    check_bind(host, token)
    if bool(hive.tls_cert) != bool(hive.tls_key):
        raise InvalidConfig("[hive_daemon] tls_cert and tls_key belong together: give both or none")
    engines_root, models_root = provisioned(folders, cache_dir=config.provisioning.cache_dir)
    return HiveSettings(
        node_id=check_id(hive.node_id or default_node_id(), what="node"),
        host=host,
        port=port,
        runtime=Path(hive.runtime_dir).absolute() if hive.runtime_dir else folders.runtime,
        state=Path(hive.state_dir).absolute()
        if hive.state_dir
        else (Path(hive.runtime_dir).absolute() / "state" if hive.runtime_dir else folders.state),
        engines_root=engines_root,
        models_root=models_root,
        address=hive.address,
        token=token,
        certificate=(hive.tls_cert, hive.tls_key) if hive.tls_cert else None,
        tls_ca=hive.tls_ca,
        queen=hive.queen.rstrip("/"),
        queen_token=token,
        probe_interval_s=hive.probe_interval_s,
        discover_interval_s=hive.discover_interval_s,
        inference_probe=hive.inference_probe,
        restart=_limits(config.restarts),
        worker_host=hive.worker_host,
        allow=frozenset(config.provisioning.allow),
        model_folders=tuple(Path(one).expanduser().resolve() for one in config.provisioning.model_folders),
        models=tuple(one.spec() for one in config.model),
        engines=config.engine,
        pools=tuple(one for one in config.pool if one.node in (None, hive.node_id or default_node_id())),
        fake_devices=config.fake_device,
        provision_parallel=config.provisioning.max_parallel,
    )


def _limits(told: RestartsConfig) -> RestartLimits:
    return RestartLimits(
        backoff=BackoffLimits(
            first_s=told.first_s,
            delay_s_max=max(told.longest_s, told.first_s),
            delay_s_min=min(BackoffLimits().delay_s_min, told.first_s),
            stable_s=told.forgiven_s,
        ),
        breaker=BreakerLimits(failures_max=told.failures, open_s=told.open_s, stable_s=told.trial_s),
        storm=StormLimits(restarts_max=told.storm_restarts, window_s=told.storm_s),
    )


def check_bind(host: str, token: str | None) -> None:
    """Refuse to serve everybody. Raises: UnsafeBind."""
    try:
        require_token_off_loopback(host, token)
    except InvalidConfig as error:
        raise UnsafeBind(
            f"refusing to bind {host} without a token: give --token-file, or bind 127.0.0.1", host=host
        ) from error


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` (IPv6 in brackets). Raises: InvalidConfig."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP
        raise InvalidConfig(f"{text!r} is not host:port, for example 127.0.0.1:9200", address=text)
    return host, int(port)


def read_token(path: str, environment: Mapping[str, str]) -> str | None:
    """Return the token of the file, else of SKEP_HIVE_TOKEN, else None. Raises: InvalidConfig."""
    if not path:
        return environment.get("SKEP_HIVE_TOKEN") or None
    try:
        file = Path(path).expanduser()
        text = file.read_text(encoding="utf-8").strip()
        open_to_others = file.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read the token file {path}: {error}", path=path) from error
    if len(text) < TOKEN_CHARS_MIN or any(not 0x20 < ord(one) < 0x7F for one in text):  # noqa: PLR2004 - visible ASCII
        raise InvalidConfig(
            f"{path} must hold one token of at least {TOKEN_CHARS_MIN} visible characters: "
            "make one with `openssl rand -hex 32`",
            path=path,
        )
    if open_to_others and os.name == "posix":
        raise InvalidConfig(f"{path} can be read by others: run `chmod 600 {path}`", path=path)
    return text


def default_node_id() -> str:
    """Return this machine's name, in the letters that an id may have."""
    name = "".join(one if one.isalnum() or one in "-." else "-" for one in socket.gethostname())[:64]
    return name.strip("-.") or "node"
