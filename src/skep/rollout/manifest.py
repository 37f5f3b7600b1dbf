"""What skep wrote on a host, and from what: the only things that it may ever remove there."""

from collections.abc import Iterable

import msgspec

from skep.spec.host import WorkerDecl


class InstalledWorker(msgspec.Struct, frozen=True, kw_only=True):
    """An engine on the host, as it was declared."""

    type: str
    version: str
    features: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name of its file on the host."""
        return "+".join((self.type, self.version, *sorted(self.features)))


def declared(workers: Iterable[WorkerDecl]) -> list[InstalledWorker]:
    """Return declared engines as a manifest lists them."""
    return [InstalledWorker(type=one.type, version=one.version, features=one.features) for one in workers]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One host's record. Empty `key` means that no hive is installed. Times are the controller's clock."""

    format: int = 1
    key: str = ""
    source: str = ""
    previous_key: str = ""
    config_key: str = ""
    hive_port: int = 0
    service: str = ""
    workers: tuple[InstalledWorker, ...] = ()
    installed_at_s: float = 0.0


def encode(manifest: Manifest) -> str:
    """Return the manifest as one line of JSON."""
    return msgspec.json.encode(manifest).decode()


def decode(text: str) -> Manifest:
    """Read a manifest; fields of newer versions are ignored. Raises: msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Manifest)
