import pytest

from skep.testkit.bdd.snippet import snippet


@pytest.mark.parametrize(
    ("text", "declared", "arguments"),
    [
        ("it rains", "'it rains'", ""),
        (
            'pool "pool-0" has 2 replicas',
            "parsers.parse('pool \"{pool}\" has {number:d} replicas')",
            "pool, number",
        ),
        (
            '"a" and "a" differ by 0.5',
            'parsers.parse(\'"{a}" and "{a2}" differ by {number:g}\')',
            "a, a2, number",
        ),
        ("a {brace}", "'a {brace}'", ""),
    ],
)
def test_a_snippet_is_python_that_matches_its_step(text: str, declared: str, arguments: str) -> None:
    found = snippet("then", text)
    assert found.startswith(f"@then({declared})\n")
    assert f"({arguments}):" in found
    compile(found, "snippet", "exec")
