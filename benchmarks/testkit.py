"""What the plugin and the bundle cost a scenario, against plain pytest-bdd and behave, on the same trivial scenarios.

    python benchmarks/testkit.py [--scenarios 500] [--rounds 3] [--behave PYTHON]

Interleaved rounds in one run; the median of each as a ratio to plain pytest-bdd. behave is measured when `--behave`
names a Python that has it (an environment of its own: it is not among our dependencies).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = """
from {library} import given, when, then

@given("a number")
def number({arguments}):
    pass

@when("it is doubled")
def doubled({arguments}):
    pass

@then("it is even")
def even({arguments}):
    assert 4 % 2 == 0
"""


def write_suite(root: Path, count: int) -> None:
    scenarios = "".join(
        f"  Scenario: S{number}\n    Given a number\n    When it is doubled\n    Then it is even\n\n"
        for number in range(count)
    )
    for name in ("bdd", "behave"):
        folder = root / name
        (folder / "steps").mkdir(parents=True)
        (folder / "f.feature").write_text(f"Feature: F\n{scenarios}")
    (root / "bdd" / "conftest.py").write_text(STEPS.format(library="pytest_bdd", arguments=""))
    (root / "bdd" / "test_f.py").write_text('from pytest_bdd import scenarios\nscenarios("f.feature")\n')
    (root / "behave" / "steps" / "steps.py").write_text(STEPS.format(library="behave", arguments="context"))


def measure(root: Path, argv: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, cwd=root, capture_output=True, check=False)
    spent_s = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{argv} failed:\n{done.stdout.decode()[-2000:]}{done.stderr.decode()[-2000:]}")
    return spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--behave", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_suite(root, options.scenarios)
        (root / "empty").mkdir()
        (root / "empty" / "test_e.py").write_text("def test_e(): pass\n")
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
        ways = {
            "pytest-bdd, plain": [*pytest, "bdd"],
            "plain again (noise)": [*pytest, "bdd"],
            "with the lint and events": [*pytest, "--skep-bdd", "bdd"],
            "and the ledger": [*pytest, "--skep-bdd", "--skep-ledger", "bdd"],
            "and a bundle (skep prove)": [
                *pytest,
                "--skep-bdd",
                "--skep-ledger",
                "--skep-proof",
                "out",
                "bdd",
            ],
        }
        if options.behave:
            ways["behave"] = [options.behave, "-m", "behave", "--format", "progress", "behave"]
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, argv in ways.items():
                spent[way].append(measure(root, argv))
    base = statistics.median(spent["pytest-bdd, plain"])
    print(f"{options.scenarios} scenarios of 3 steps, {options.rounds} interleaved rounds, medians\n")
    print("| way | seconds | ms a scenario more than plain | ratio |\n| --- | --- | --- | --- |")
    for way, times in spent.items():
        median = statistics.median(times)
        print(
            f"| {way} | {median:.2f} | {(median - base) / options.scenarios * 1000:+.2f} | {median / base:.2f} |"
        )


if __name__ == "__main__":
    main()
