"""How many pods, per node, match a selector or carry a term: kept up to date pod by pod.

A counter logs its changes, so that whoever aggregates it (per zone, per class) follows at the cost of the change.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

LOG_MAX: Final = 65_536
NO_DOMAIN: Final = 2**31 - 1


class TermCounter:
    """Counts per node slot. `counts` is a list on small tables and a numpy array on large ones."""

    __slots__ = ("counts", "epoch", "log", "matches", "total")

    def __init__(self, counts: Any, matches: Callable[[Any], bool]) -> None:
        self.counts = counts
        self.matches = matches
        self.total = int(sum(counts)) if isinstance(counts, list) else int(counts.sum())
        self.epoch = 0
        self.log: list[tuple[int, int]] = []

    def add(self, slot: int, delta: int) -> None:
        """Change one node's count."""
        self.counts[slot] += delta
        self.total += delta
        log = self.log
        if len(log) >= LOG_MAX:
            log.clear()
            self.epoch += 1
        log.append((slot, delta))


class Totals:
    """A counter added up per topology domain, over the nodes that `counted` names (None: all).

    `totals` is a list or an array like the counter's counts; `present` names the domains that have a counted node.
    """

    __slots__ = ("_at", "_epoch", "counted", "counter", "of", "present", "totals", "vector")

    def __init__(self, counter: TermCounter, of: Any, size: int, counted: Any = None) -> None:
        self.counter, self.of, self.counted = counter, of, counted
        self.vector = not isinstance(of, list)
        self.present = self._present(size)
        self.totals: Any = np.zeros(size, dtype=np.int64) if self.vector else [0] * size
        self._fill()

    def _fill(self) -> None:
        self._epoch, self._at = self.counter.epoch, len(self.counter.log)
        if self.vector:
            kept = self.of >= 0 if self.counted is None else (self.of >= 0) & self.counted
            self.totals[:] = 0
            np.add.at(self.totals, self.of[kept], self.counter.counts[kept])
            return
        totals = [0] * len(self.totals)
        if not self.counter.total:
            self.totals = totals
            return
        for slot, domain in enumerate(self.of):
            if domain >= 0 and (self.counted is None or self.counted[slot]):
                totals[domain] += self.counter.counts[slot]
        self.totals = totals

    def _present(self, size: int) -> Any:
        """Return the domains with a counted node; None is all of them."""
        if self.counted is None:
            return None
        if self.vector:
            kept = self.of >= 0 if self.counted is None else (self.of >= 0) & self.counted
            found = np.unique(self.of[kept])
            return None if len(found) == size else found
        seen = {
            domain
            for slot, domain in enumerate(self.of)
            if domain >= 0 and (self.counted is None or self.counted[slot])
        }
        return None if len(seen) == size else sorted(seen)

    def sync(self) -> Any:
        """Take up the counter's changes; return `totals`."""
        counter, totals = self.counter, self.totals
        if self._epoch != counter.epoch:
            self._fill()
            return self.totals
        log = counter.log
        if self._at != len(log):
            for slot, delta in log[self._at :]:
                domain = self.of[slot]
                if domain >= 0 and (self.counted is None or self.counted[slot]):
                    totals[domain] += delta
            self._at = len(log)
        return totals

    def lowest(self, domains_min: int) -> int:
        """Return the smallest total over present domains; 0 when fewer than `domains_min` are present.

        Without any domain it is beyond every total, so that nothing is skewed.
        """
        totals, present = self.totals, self.present
        size = len(totals) if present is None else len(present)
        if size < domains_min and size:
            return 0
        if not size:
            return NO_DOMAIN
        if self.vector:
            return int(totals.min() if present is None else totals[present].min())
        return int(min(totals) if present is None else min(totals[domain] for domain in present))
