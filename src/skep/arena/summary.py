"""A run's totals: what they count, and how they grow by lines without reading the history again."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

SUMMARY_FILE: Final = "summary.json"
FORMAT: Final = 1
PICO: Final = 10**12
"""Rewards are added as whole 10⁻¹² units, so that the sum does not depend on the order of the lines."""


class Summary(msgspec.Struct, kw_only=True):
    """Totals over `step.jsonl` up to `covered_bytes`. `unreadable` counts lines that are no records."""

    generated_by: str = "skep arena"
    format: int = FORMAT
    covered_bytes: int = 0
    steps: int = 0
    reward_total: float = 0.0
    reward_mean: float = 0.0
    reward_pico: int = 0
    rewarded_steps: int = 0
    goals: int = 0
    actions: dict[str, int] = {}
    statuses: dict[str, int] = {}
    policies: dict[str, int] = {}
    runs: int = 0
    unreadable: int = 0

    def add(self, record: dict[str, Any]) -> None:
        """Count one record."""
        self.steps += 1
        self.runs += record.get("step") == 0
        _count(self.statuses, record.get("status"))
        _count(self.policies, record.get("policy"))
        _count(self.actions, record.get("action"))
        reward = record.get("reward")
        if isinstance(reward, int | float):
            self.rewarded_steps += 1
            self.reward_pico += round(reward * PICO)
            self.reward_total = self.reward_pico / PICO
            self.reward_mean = self.reward_total / self.rewarded_steps
        seen, target = record.get("observation"), record.get("target")
        self.goals += bool(seen and seen["ready"] == seen["total"] == target and seen["pending"] == 0)


def _count(counts: dict[str, int], key: Any) -> None:
    if key is not None:
        counts[str(key)] = counts.get(str(key), 0) + 1


def load_summary(folder: Path) -> Summary:
    """Read a folder's summary; an absent one is empty, a corrupt one is set aside and starts empty."""
    path = folder / SUMMARY_FILE
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=Summary)
    except FileNotFoundError:
        return Summary()
    except (msgspec.DecodeError, UnicodeDecodeError):
        _set_aside(path)
        return Summary()
    steps = folder / "step.jsonl"
    size = steps.stat().st_size if steps.exists() else 0
    if summary.format != FORMAT or summary.covered_bytes > size:
        _set_aside(path)
        return Summary()
    return summary


def _set_aside(path: Path) -> None:
    for number in range(1000):
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        if not aside.exists():
            path.rename(aside)
            return
    path.unlink()


def fold(summary: Summary, steps: Path) -> None:
    """Count the whole lines that come after what the summary covers."""
    if not steps.exists():
        return
    with steps.open("rb") as file:
        file.seek(summary.covered_bytes)
        for line in file:
            if not line.endswith(b"\n"):
                break
            summary.covered_bytes += len(line)
            try:
                record = msgspec.json.decode(line)
                summary.add(record)
            except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
                summary.unreadable += 1


def store_summary(folder: Path, summary: Summary) -> None:
    """Replace a folder's summary: to a temporary name, to disk, renamed."""
    text = msgspec.json.format(msgspec.json.encode(summary, order="deterministic"), indent=2)
    temporary = folder / f".{SUMMARY_FILE}.tmp"
    with temporary.open("wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / SUMMARY_FILE)
