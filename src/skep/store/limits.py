"""What a transaction may hold: checked once, the same for every implementation."""

from collections.abc import Sequence

from skep.errors import InvalidInput
from skep.store.base import (
    KEY_BYTES_MAX,
    LEASE_S_MIN,
    TXN_CHANGES_MAX,
    VALUE_BYTES_MAX,
    Change,
    Compare,
    Put,
)


def check_key(key: str) -> str:
    """Return the key. Raises: InvalidInput when it is empty, too long or holds a NUL."""
    if not key or len(key.encode()) > KEY_BYTES_MAX or "\0" in key:
        raise InvalidInput(f"a store's key has 1 to {KEY_BYTES_MAX} bytes and no NUL", key=key[:80])
    return key


def check_txn(compares: Sequence[Compare], changes: Sequence[Change]) -> None:
    """Raises: InvalidInput when a transaction is too large or changes a key twice."""
    if len(changes) > TXN_CHANGES_MAX or len(compares) > TXN_CHANGES_MAX:
        raise InvalidInput(f"a transaction has at most {TXN_CHANGES_MAX} changes and as many conditions")
    keys = [check_key(one.key) for one in changes]
    if len(set(keys)) != len(keys):
        raise InvalidInput("a transaction may change a key only once")
    for change in changes:
        if isinstance(change, Put) and len(change.value) > VALUE_BYTES_MAX:
            message = f"the value of {change.key} is larger than {VALUE_BYTES_MAX} bytes"
            raise InvalidInput(message, key=change.key)


def check_ttl(ttl_s: float) -> float:
    """Return the term. Raises: InvalidInput below the smallest."""
    if not ttl_s >= LEASE_S_MIN:
        raise InvalidInput(f"a lease lasts at least {LEASE_S_MIN} s", ttl_s=ttl_s)
    return ttl_s
