"""Where skep keeps its files: `$SKEP_HOME`, else the XDG base directories. Pure: an environment in, paths out."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from skep.errors import InvalidConfig


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """`runtime`: handoffs and locks, gone after a reboot at best. `state`: databases and logs. `cache`: may be deleted."""

    runtime: Path
    state: Path
    data: Path
    cache: Path
    config: Path

    @property
    def engines(self) -> Path:
        """Where provisioned engines stand."""
        return self.data / "engines"

    @property
    def models(self) -> Path:
        """Where fetched models stand."""
        return self.data / "models"


def provisioned(found: Folders, *, cache_dir: str) -> tuple[Path, Path]:
    """Return where engines and models stand: below `[provisioning] cache_dir`, else in the data folder."""
    if not cache_dir:
        return found.engines, found.models
    cache = Path(cache_dir).expanduser().absolute()
    return cache / "engines", cache / "models"


def folders(environment: Mapping[str, str]) -> Folders:
    """Return the folders that this environment means; nothing is created. Raises: InvalidConfig."""
    if home := environment.get("SKEP_HOME"):
        base = _absolute("SKEP_HOME", home)
        return Folders(
            runtime=base / "run", state=base / "state", data=base / "data", cache=base / "cache", config=base
        )
    user = environment.get("HOME")

    def xdg(variable: str, below_home: str) -> Path:
        if given := environment.get(variable):
            return _absolute(variable, given) / "skep"
        if not user:
            raise InvalidConfig(f"neither SKEP_HOME, {variable} nor HOME is set: set SKEP_HOME to a folder")
        return _absolute("HOME", user) / below_home / "skep"

    state = xdg("XDG_STATE_HOME", ".local/state")
    given = environment.get("XDG_RUNTIME_DIR")
    return Folders(
        runtime=_absolute("XDG_RUNTIME_DIR", given) / "skep" if given else state / "run",
        state=state,
        data=xdg("XDG_DATA_HOME", ".local/share"),
        cache=xdg("XDG_CACHE_HOME", ".cache"),
        config=xdg("XDG_CONFIG_HOME", ".config"),
    )


def _absolute(variable: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise InvalidConfig(f"{variable} is {text!r}: it must be an absolute path", variable=variable)
    return path
