"""What people are shown: a table, a line as each clause ends, and the clauses without any server."""

import shutil
from pathlib import Path

from rich.table import Table
from rich.text import Text

from skep.errors import InvalidConfig
from skep.testkit.check.clause import Clause, chosen
from skep.testkit.check.run import Report
from skep.testkit.check.verdict import Finding, Severity, Verdict

STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.UNSUPPORTED: "yellow",
    Verdict.NOT_OBSERVABLE: "dim",
}
WORST_SHOWN = 5


def as_table(report: Report, *, only_failures: bool = False) -> Table:
    """Return a row a clause; below it what is broken, with the exchange that shows it."""
    counts = {one: sum(found.verdict is one for found in report.findings) for one in Verdict}
    title = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    table = Table("clause", "verdict", "what was seen", box=None, header_style="bold", caption=title)
    table.caption_justify = "left"
    for found in report.findings:
        if only_failures and found.verdict is not Verdict.FAIL:
            continue
        table.add_row(
            Text(found.clause),
            Text(_word(found), style=STYLES[found.verdict]),
            Text(found.detail or found.rule),
        )
        if found.verdict is Verdict.FAIL:
            table.add_row("", "", Text(f"the rule: {found.rule} ({found.source})", style="dim"))
            for line in found.trace.splitlines()[:WORST_SHOWN]:
                table.add_row("", "", Text(line[:160], style="dim"))
    return table


def progress_line(found: Finding) -> str:
    """Return a line for the log."""
    return f"{_word(found):15} {found.clause:28} {found.duration_ms / 1000:6.1f} s  {found.detail}"


def listed(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """Return the chosen clauses, for a script."""
    return [
        {
            "id": one.id,
            "rule": one.rule,
            "severity": one.severity,
            "source": one.source,
            "needs": _needs(one),
        }
        for one in chosen(only, skip)
    ]


def clause_table(rows: list[dict[str, object]]) -> Table:
    """Return the clauses as people read them."""
    table = Table("clause", "", "rule", "needs", box=None, header_style="bold")
    for row in rows:
        table.add_row(str(row["id"]), str(row["severity"]), str(row["rule"]), str(row["needs"]))
    return table


def write_junit(report: Report, path: Path) -> None:
    """Copy the bundle's JUnit file. Raises: InvalidConfig without a bundle."""
    if not report.bundle:
        raise InvalidConfig("--junit takes the file from the bundle: do not leave --out empty")
    shutil.copyfile(Path(report.bundle) / "junit.xml", path)


def _needs(one: Clause) -> str:
    return "--chaos" if one.is_chaos else "--command" if one.needs_process else ""


def _word(found: Finding) -> str:
    is_soft = found.verdict is Verdict.FAIL and found.severity is Severity.SHOULD
    return f"{found.verdict} (should)" if is_soft else str(found.verdict)
