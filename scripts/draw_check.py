"""Write the table of clauses into docs/check.md; a test holds the page against the code."""

from pathlib import Path

from skep.testkit.check.report import listed

PAGE = Path(__file__).parent.parent / "docs" / "check.md"
BEGIN, END = "<!-- clauses -->\n", "<!-- end of clauses -->\n"


def table() -> str:
    """Return the clauses as Markdown."""
    rows = ["| clause | | the rule | from | needs |", "| --- | --- | --- | --- | --- |"]
    for one in listed():
        cells = (
            f"`{one['id']}`",
            one["severity"],
            one["rule"],
            one["source"],
            one["needs"] and f"`{one['needs']}`",
        )
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """Return the page with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
