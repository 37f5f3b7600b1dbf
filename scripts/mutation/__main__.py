"""Break every pure policy and every table entry in turn, and list what no test and no scenario notices.

    python scripts/mutation unit [--only restart,breaker]     # each mutant against its room's unit tests
    python scripts/mutation reach                             # which scenario uses which policy and table entry
    python scripts/mutation features [--only pool,replica]    # each mutant inside the daemons, against scenarios that reach it
    python scripts/mutation report                            # docs/mutation.md; exit 1 while a survivor has no reason

Results are kept below `--out` (default .mutation), so that a run that was stopped goes on where it was. No file of the
tree is touched: a mutant is put in place by an import hook, and says in which process it was loaded.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from mutants import TARGETS, Mutant, mutants_of
from report import write_report
from results import Results

from features import SCENARIOS_MAX, find_reach, try_features
from unit import try_units

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("unit", "reach", "features", "report"))
    parser.add_argument("--only", default="", help="Modules, by their last names.")
    parser.add_argument(
        "--scenarios", default="", help="For reach: a -k expression, to look again at these alone."
    )
    parser.add_argument(
        "--most", type=int, default=SCENARIOS_MAX, help="Scenarios that a mutant meets at most."
    )
    parser.add_argument("--again", action="store_true", help="For features: what has survived as well.")
    parser.add_argument("--budget-s", type=float, default=24 * 3600)
    parser.add_argument("--out", type=Path, default=Path(".mutation"))
    options = parser.parse_args()
    os.chdir(ROOT)
    out = options.out.resolve()
    out.mkdir(exist_ok=True)
    chosen = [
        name for name in TARGETS if not options.only or name.rpartition(".")[2] in options.only.split(",")
    ]
    mutants: list[Mutant] = [each for name in chosen for each in mutants_of(name, ROOT / "src")]
    deadline_s = time.monotonic() + options.budget_s
    match options.what:
        case "unit":
            try_units(mutants, Results(out / "unit.jsonl"), deadline_s=deadline_s)
        case "reach":
            find_reach(out, options.scenarios)
        case "features":
            try_features(
                mutants,
                Results(out / "features.jsonl"),
                out,
                deadline_s=deadline_s,
                most=options.most,
                again=options.again,
            )
        case "report":
            sys.exit(write_report(ROOT, out, mutants))


if __name__ == "__main__":
    main()
