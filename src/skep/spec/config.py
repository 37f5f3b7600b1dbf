"""The whole of skep.toml, and how its layers are laid over each other. Unknown fields are errors that name their line."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from skep.errors import InvalidConfig, InvalidInput
from skep.spec.engine import EngineSpec
from skep.spec.model import ModelRef, ModelSpec, parse_ref
from skep.spec.place import explained, line_of
from skep.spec.pool import PoolSpec

_TOML_LINE = re.compile(r"at line (\d+)")
Permission = Literal["download", "build", "package"]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections."""


class QueenConfig(_Section, frozen=True, kw_only=True):
    """`[queen]`: the orchestrator. `advertise`: the admin URL for other queens; `host_names`: names it is known by; `proofs`: bundles to show."""

    bind: str = "127.0.0.1:8080"
    admin_bind: str = "127.0.0.1:8081"
    store: str = ""
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    load_wait_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    record_trace: str = ""
    advertise: str = ""
    host_names: tuple[str, ...] = ()
    proofs: str = ".proof_bundle"


class HiveConfig(_Section, frozen=True, kw_only=True):
    """`[hive_daemon]`: the node daemon. `address` is how the queen reaches it, where that is not `bind`."""

    bind: str = "127.0.0.1:9200"
    runtime_dir: str = ""
    state_dir: str = ""
    queen: str = ""
    address: str = ""
    token_file: str = ""
    node_id: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    probe_interval_s: Annotated[float, Meta(ge=0.05, le=600)] = 10.0
    discover_interval_s: Annotated[float, Meta(ge=0.05, le=600)] = 10.0
    inference_probe: bool = False
    worker_host: str = "127.0.0.1"


class RestartsConfig(_Section, frozen=True, kw_only=True):
    """`[restarts]`: when a hive tries a failed worker again.

    The wait before the next start begins at `first_s`, doubles with each failure in a row up to `longest_s`, and is
    forgotten after `forgiven_s` of being ready. After `failures` in a row nothing is tried for `open_s`; then one trial
    decides, and `trial_s` of being ready passes it. More than `storm_restarts` within `storm_s` stop a pool at once.
    """

    first_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    longest_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    forgiven_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    failures: Annotated[int, Meta(ge=1, le=1000)] = 5
    open_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    trial_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    storm_restarts: Annotated[int, Meta(ge=1, le=100_000)] = 10
    storm_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0


class ProvisioningConfig(_Section, frozen=True, kw_only=True):
    """`[provisioning]`: what may be brought to this machine, and which folders an API call may name models in."""

    allow: tuple[Permission, ...] = ("download", "build", "package")
    cache_dir: str = ""
    max_parallel: Annotated[int, Meta(ge=1, le=64)] = 4
    model_folders: tuple[str, ...] = ()


class ModelConfig(_Section, frozen=True, kw_only=True):
    """One `[[model]]`."""

    name: str
    ref: str
    aliases: tuple[str, ...] = ()
    sha256: str = ""
    chat_template: str | None = None

    def spec(self) -> ModelSpec:
        """Return the model. Raises: InvalidInput."""
        ref: ModelRef = parse_ref(self.ref)
        if self.sha256:
            ref = msgspec.structs.replace(ref, sha256=self.sha256)
        return ModelSpec(name=self.name, ref=ref, aliases=self.aliases, chat_template=self.chat_template)


class FakeDeviceConfig(_Section, frozen=True, kw_only=True):
    """One `[[fake_device]]`: with any of them, the machine's own accelerators are not looked at.

    With `while_exists`, a path, the device is there only while that file is, so that it can vanish and come back.
    """

    index: Annotated[int, Meta(ge=0)]
    memory_total_bytes: Annotated[int, Meta(ge=0)]
    name: str = "Fake accelerator"
    compute_capability: str | None = None
    temperature_c: float | None = None
    id: str = ""
    while_exists: str = ""


class Config(_Section, frozen=True, kw_only=True):
    """skep.toml. The tables of rollout and arena are read by those rooms."""

    queen: QueenConfig = QueenConfig()
    hive_daemon: HiveConfig = HiveConfig()
    restarts: RestartsConfig = RestartsConfig()
    provisioning: ProvisioningConfig = ProvisioningConfig()
    model: tuple[ModelConfig, ...] = ()
    pool: tuple[PoolSpec, ...] = ()
    engine: tuple[EngineSpec, ...] = ()
    fake_device: tuple[FakeDeviceConfig, ...] = ()
    hive: tuple[dict[str, Any], ...] = ()
    hive_defaults: dict[str, Any] = {}
    arena: dict[str, Any] = {}


class Layer(NamedTuple):
    """One source of values. `text` is the TOML text that the values came from, "" for flags and the environment."""

    source: str
    values: Mapping[str, Any]
    text: str = ""


class Resolved(NamedTuple):
    """The configuration, and for each dotted path the source that set it; what is not in `origins` is a default."""

    config: Config
    origins: Mapping[str, str]


def read_layer(text: str, *, source: str) -> Layer:
    """Parse one skep.toml and check it by itself, so that an error names its own file and line. Raises: InvalidConfig."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _TOML_LINE.search(str(error))
        raise InvalidConfig(
            f"{source}:{at[1]}: {error}" if at else f"{source}: {error}", source=source
        ) from error
    layer = Layer(source, values, text)
    check(layer)
    return layer


def check(layer: Layer) -> Config:
    """Return the configuration of one layer alone. Raises: InvalidConfig, naming file, line and field."""
    try:
        config = msgspec.convert(layer.values, Config)
        for model in config.model:
            model.spec()
    except msgspec.ValidationError as error:
        raise InvalidConfig(_explain(layer, str(error)), source=layer.source) from error
    except InvalidInput as error:
        raise InvalidConfig(f"{layer.source}: {error}", source=layer.source) from error
    _refuse_doubles(layer.source, "pool", [pool.id for pool in config.pool])
    _refuse_doubles(layer.source, "engine", [engine.id for engine in config.engine])
    names = [name for model in config.model for name in (model.name, *model.aliases)]
    _refuse_doubles(layer.source, "model", names)
    return config


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """Return what `SKEP_<SECTION>_<FIELD>` variables say, lists separated by commas."""
    values: dict[str, dict[str, Any]] = {}
    for section in ("queen", "hive_daemon", "restarts", "provisioning"):
        kind = type(getattr(Config(), section))
        for field in msgspec.structs.fields(kind):
            given = environment.get(f"SKEP_{section}_{field.name}".upper())
            if given is not None:
                values.setdefault(section, {})[field.name] = _from_text(given, field.default)
    return Layer("the environment", values)


def resolve(layers: Iterable[Layer]) -> Resolved:
    """Lay the layers over each other, the weakest first. Tables merge field by field; lists are replaced whole.

    Raises: InvalidConfig.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for section, value in layer.values.items():
            if isinstance(value, Mapping):
                merged[section] = {**merged.get(section, {}), **value}
                origins.update({f"{section}.{name}": layer.source for name in value})
            else:
                merged[section] = value
                origins[section] = layer.source
    return Resolved(check(Layer("the configuration", merged)), origins)


def _from_text(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return text.lower() in {"1", "true", "yes", "on"}
    if isinstance(like, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return type(like)(text) if isinstance(like, int | float) else text
    except ValueError:
        return text  # The check that follows says what is wrong with it.


def _refuse_doubles(source: str, kind: str, names: Sequence[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InvalidConfig(f"{source}: {kind} {', '.join(doubled)} is declared twice", source=source)


def _explain(layer: Layer, message: str) -> str:
    """Turn msgspec's message into file, line and dotted path."""
    path, text = explained(message)
    line = line_of(layer.text, path)
    return f"{layer.source}:{line}: {text}" if line else f"{layer.source}: {text}"
