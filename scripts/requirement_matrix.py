"""Write docs/requirement-matrix.md: which scenarios prove which requirement."""

from pathlib import Path

from skep.testkit.bdd.requirements import read_requirements, render_matrix

ROOT = Path(__file__).parents[1]


def main() -> None:
    requirements = read_requirements(ROOT / "docs" / "requirements")
    text = render_matrix(requirements, (ROOT / "tests" / "features").rglob("*.feature"))
    (ROOT / "docs" / "requirement-matrix.md").write_text(text)


if __name__ == "__main__":
    main()
