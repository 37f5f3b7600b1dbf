"""What the harnesses of the running test have to tell, if it fails. One list a process, as tests run one at a time."""

from collections.abc import Callable

_records: list["Record"] = []


class Record:
    """One harness: its lines are asked for while it lives, and kept when it closes."""

    def __init__(self, name: str, lines: Callable[[], list[str]]) -> None:
        self.name = name
        self._lines: Callable[[], list[str]] | None = lines
        self._kept: list[str] = []

    @property
    def is_open(self) -> bool:
        """True while its harness lives."""
        return self._lines is not None

    def lines(self) -> list[str]:
        """Return what there is to tell."""
        return self._kept if self._lines is None else self._lines()

    def close(self) -> None:
        """Keep the last lines; the log file may go."""
        self._kept, self._lines = self.lines(), None


def open_record(name: str, lines: Callable[[], list[str]]) -> Record:
    """Return a new record of the running test."""
    record = Record(name, lines)
    _records.append(record)
    return record


def records() -> list[Record]:
    """Return the records of the running test."""
    return list(_records)


def clear() -> None:
    """Forget what is closed: another test begins. A worker that several tests share goes on telling."""
    _records[:] = [record for record in _records if record.is_open]
