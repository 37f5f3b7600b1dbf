"""docs/mutation.md: what was killed and by what, and each survivor with its reason."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mutants import TARGETS, Mutant
from results import Results

REASONS = Path(__file__).parent / "reasons.toml"
NONE = "**none yet**"


def write_report(root: Path, out: Path, mutants: Sequence[Mutant]) -> int:
    """Write the page; return 1 while something is unexplained."""
    unit, features = Results(out / "unit.jsonl").found, Results(out / "features.jsonl").found
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    alive = [each for each in mutants if _verdict(unit, each) == "survived"]
    unnoticed = [each for each in mutants if _verdict(features, each) in {"survived", "unreached"}]
    text = (
        (Path(__file__).parent / "preface.md").read_text(encoding="utf-8")
        + _table(mutants, unit, features)
        + "\n## Survivors of the unit tests\n\n"
        + _survivors(alive, reasons.get("unit", {}))
        + "\n## What no scenario notices\n\n"
        + "Each of these is killed by a unit test unless it is also listed above. Grouped by the function or table entry.\n\n"
        + _unnoticed(unnoticed, features, reasons.get("features", {}))
        + "\n## Which step noticed\n\n"
        + _steps(features)
    )
    (root / "docs" / "mutation.md").write_text(text, encoding="utf-8")
    left = text.count(NONE)
    print(f"docs/mutation.md: {len(alive)} survivors of the unit tests, {left} without a reason")
    return 1 if left else 0


def _verdict(found: dict[str, dict[str, Any]], mutant: Mutant) -> str:
    return str(found.get(mutant.key, {}).get("verdict", "not tried"))


def _table(mutants: Sequence[Mutant], unit: dict[str, Any], features: dict[str, Any]) -> str:
    lines = ["| module | mutants | killed by unit tests | survived | killed by a scenario | survived | not reached | not tried |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for module in TARGETS:
        mine = [each for each in mutants if each.module == module]
        one, two = (Counter(_verdict(found, each) for each in mine) for found in (unit, features))
        cells = (
            one["killed"],
            one["survived"],
            two["killed"],
            two["survived"],
            two["unreached"],
            two["not tried"],
        )
        lines.append(f"| `{module}` | {len(mine)} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _survivors(alive: Iterable[Mutant], reasons: dict[str, str]) -> str:
    rows = [
        f"| `{each.module}`: `{_cell(each.text)}` | {_cell(each.word)} | {reasons.get(each.key) or reasons.get(each.module, NONE)} |"
        for each in alive
    ]
    return (
        "| place | change | why nothing notices |\n| --- | --- | --- |\n"
        + "\n".join(rows or ["| none | | |"])
        + "\n"
    )


def _unnoticed(mutants: Iterable[Mutant], features: dict[str, Any], reasons: dict[str, str]) -> str:
    groups: dict[tuple[str, str], list[Mutant]] = {}
    for each in mutants:
        groups.setdefault((each.reached_by, _verdict(features, each)), []).append(each)
    rows = []
    for (place, verdict), members in groups.items():
        reason = reasons.get(place) or reasons.get(place.partition(":")[0]) or NONE
        rows.append(f"| `{place.strip(':')}` | {verdict} | {len(members)} | {reason} |")
    return (
        "| place | verdict | mutants | why |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows or ["| none | | | |"])
        + "\n"
    )


def _steps(features: dict[str, Any]) -> str:
    steps = Counter(
        row["step"] for row in features.values() if row["verdict"] == "killed" and row.get("step")
    )
    rows = [f"| {_cell(step)} | {count} |" for step, count in steps.most_common()]
    return "| step | mutants that it killed |\n| --- | --- |\n" + "\n".join(rows or ["| none yet | |"]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
