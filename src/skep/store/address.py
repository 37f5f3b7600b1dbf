"""Which store an address names: `sqlite:PATH` or `etcd:http://a,http://b,http://c`."""

from pathlib import Path

from skep.errors import InvalidConfig
from skep.store.base import Store
from skep.store.etcd import EtcdStore
from skep.store.sqlite import SqliteStore


def open_store(address: str) -> Store:
    """Return the store, not yet entered. Raises: InvalidConfig."""
    kind, _, rest = address.partition(":")
    if kind == "sqlite" and rest:
        return SqliteStore(Path(rest).expanduser())
    if kind == "etcd" and rest:
        endpoints = [one.strip() for one in rest.split(",")]
        if all(one.startswith(("http://", "https://")) for one in endpoints):
            return EtcdStore(endpoints)
    raise InvalidConfig(
        f"{address!r} names no store: use sqlite:PATH or etcd:http://host:2379[,http://…]", address=address
    )
