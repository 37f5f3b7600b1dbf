"""A program: pip, told of another machine. Its first argument is that machine's marker environment, the rest are pip's.

`pip download --platform` chooses files for another machine, but holds markers (`; platform_machine == …`) against its
own interpreter, the Python version included: it would leave out what only the other needs, or ask for what only this one does.
"""

import importlib
import json
import runpy
import sys


def main() -> None:
    """Replace pip's marker environment, then be pip."""
    theirs = json.loads(sys.argv[1])
    markers = importlib.import_module("pip._vendor.packaging.markers")
    if not set(markers.default_environment()) <= set(theirs):
        sys.exit("this pip knows markers that skep does not tell: use another version of pip")
    markers.default_environment = lambda: dict(theirs)  # type: ignore[attr-defined]
    sys.argv[:2] = ["pip"]
    runpy.run_module("pip", run_name="__main__")


if __name__ == "__main__":
    main()
