"""Reading the layers of the configuration: flags, environment, ./skep.toml, the user's skep.toml."""

import os
from pathlib import Path

from skep.errors import InvalidConfig
from skep.spec.config import Layer, Resolved, environment_layer, read_layer, resolve
from skep.spec.folders import folders

NAME = "skep.toml"


def load_config(given: Path | None = None, *, flags: Layer | None = None) -> Resolved:
    """Return the configuration; `given` stands in for both files. Raises: InvalidConfig."""
    layers = [_read(path) for path in _files(given) if given or path.is_file()]
    layers.append(environment_layer(os.environ))
    if flags is not None:
        layers.append(flags)
    return resolve(layers)


def _files(given: Path | None) -> list[Path]:
    return [given] if given else [folders(os.environ).config / NAME, Path(NAME)]


def _read(path: Path) -> Layer:
    try:
        return read_layer(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read {path}: {error}", path=str(path)) from error
