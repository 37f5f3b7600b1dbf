"""Where things stand on a host, relative to its home. The only file that knows."""

from typing import Final

BIN: Final = ".local/bin"
SHARE: Final = ".local/share/skep"
VERSIONS: Final = f"{SHARE}/versions"
CURRENT: Final = f"{SHARE}/current"
PREVIOUS: Final = f"{SHARE}/previous"
ENGINES: Final = f"{SHARE}/engines"
WORKERS: Final = f"{SHARE}/workers"  # One file an installed worker; it holds its engine's folder.
MANIFEST: Final = f"{SHARE}/manifest.json"
LOCK: Final = f"{SHARE}/lock"
SERVICE_LOG: Final = f"{SHARE}/hive.log"
SERVICE_PID: Final = f"{SHARE}/hive.pid"
HIVE_CONFIG: Final = (
    f"{CURRENT}/hive.toml"  # Beside the program, so that switching back brings its configuration back too.
)
HIVE_TOKEN: Final = f"{SHARE}/queen.token"
DRAINED: Final = f"{SHARE}/drained"  # The pools that a sync drained, to be loaded again.
UPLOADS: Final = ".cache/skep/upload"
BUILD: Final = ".cache/skep/build"
UNIT: Final = ".config/systemd/user/skep-hive.service"

COMPLETE: Final = ".complete"  # In a version's folder: it is whole and was verified.
EXECUTABLE: Final = "bin/skep"  # In a version's folder.
