from pathlib import Path

from skep.testkit.bdd.requirements import read_requirements, render_matrix

ROOT = Path(__file__).parents[3]
FEATURES = ROOT / "tests" / "features"


def test_every_requirement_has_a_scenario_and_the_table_in_the_docs_is_true() -> None:
    requirements = read_requirements(ROOT / "docs" / "requirements")
    text = render_matrix(requirements, FEATURES.rglob("*.feature"))
    assert "**none**" not in text
    found = (ROOT / "docs" / "requirement-matrix.md").read_text()
    assert found == text, "run python scripts/requirement_matrix.py"


def test_the_seed_scenario_stands_word_for_word() -> None:
    seed = """    Given pool-managerd is running
    And GPU 0 is available
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then the pool state should be "provisioning"
    And the engine should download the model
    And the pool state should transition to "ready"
    And the handoff file should exist
"""
    assert seed in (FEATURES / "preload.feature").read_text()


def test_every_survivor_of_the_mutation_run_has_its_reason() -> None:
    page = (ROOT / "docs" / "mutation.md").read_text()
    assert "## Survivors of the unit tests" in page
    assert "none yet" not in page, (
        "explain it in scripts/mutation/reasons.toml, or write a test that kills it"
    )
