from pathlib import Path

import pytest

from skep.lifecycle.job import JOB
from skep.lifecycle.node import NODE
from skep.lifecycle.pool import POOL
from skep.lifecycle.replica import REPLICA

PAGE = Path(__file__).parents[3] / "docs" / "lifecycle.md"


@pytest.mark.parametrize("table", [REPLICA, POOL, NODE, JOB], ids=lambda table: table.name)
def test_the_page_shows_the_diagram_of_the_code(table) -> None:
    assert f"```mermaid\n{table.diagram()}\n```" in PAGE.read_text(), (
        "docs/lifecycle.md is behind the code: run scripts/draw_lifecycles.py"
    )
