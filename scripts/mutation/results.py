"""What became of each mutant, a line each, so that a run can be stopped and go on."""

import json
from pathlib import Path
from typing import Any


class Results:
    """A file of results by the mutants' keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.found[row["key"]] = row

    def add(self, key: str, verdict: str, **facts: Any) -> None:
        """Keep a verdict: killed, survived, unreached, or not loaded."""
        row = {"key": key, "verdict": verdict, **facts}
        self.found[key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
