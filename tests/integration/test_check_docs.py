"""docs/check.md is what the code says, and its commands run."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from skep.testkit.check.reference import Reference
from skep.testkit.check.report import listed

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "check.md"
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_table_of_clauses_is_what_the_code_holds() -> None:
    text = PAGE.read_text()
    ids = re.findall(r"^\| `([a-z.-]+)` \| (?:must|should)", text, re.MULTILINE)
    assert ids == [one["id"] for one in listed()], "run scripts/draw_check.py"
    for one in listed():
        row = f"| `{one['id']}` | {one['severity']} | {one['rule']} | {one['source']} |"
        assert row in text, "run scripts/draw_check.py"


async def skep(*argv: str, at: Path) -> tuple[int | None, str, str]:
    """Run a command in a folder of its own."""
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "skep.cli.main", *argv, cwd=at, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await done.communicate()
    return done.returncode, out.decode(), err.decode()


def commands() -> list[str]:
    lines = "".join(FENCE.findall(PAGE.read_text())).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("skep check")]


@pytest.mark.parametrize(
    "command", [one for one in commands() if "--command" not in one and "--chaos" not in one]
)
async def test_a_command_of_the_page_runs(command: str, tmp_path: Path) -> None:
    async with Reference() as server:
        argv = re.sub(r"http://127\.0\.0\.1:8080", server.url, command)
        argv = argv if "--only" in argv or "--list" in argv else f"{argv} --only endpoints"
        code, out, err = await skep(*shlex.split(argv)[1:], at=tmp_path)
    assert code == 0, err
    assert "stream.one-done" in out or "PASS" in out
    assert (tmp_path / ".proof_bundle" / "check").is_dir() or "--list" in argv


async def test_exit_codes_tell_a_broken_rule_from_bad_usage(tmp_path: Path) -> None:
    async with Reference(faults=frozenset({"stream.one-done", "errors.unknown-model"})) as server:
        stream = (server.url, "--only", "stream.one-done", "--out", "")
        code, out, _ = await skep("check", *stream, "--json", at=tmp_path)
        assert code == 1
        assert json.loads(out)["findings"][0]["verdict"] == "FAIL"
        code, out, _ = await skep("check", *stream, "--quiet", at=tmp_path)
        assert code == 1
        assert "[DONE] comes 0 times" in out
        should = (server.url, "--only", "errors.unknown-model", "--out", "")
        assert [(await skep("check", *should, *more, at=tmp_path))[0] for more in ((), ("--strict",))] == [
            0,
            1,
        ]
    code, _, err = await skep("check", "http://127.0.0.1:9", "--only", "nothing", at=tmp_path)
    assert (code, "areas are" in err) == (2, True), err
    code, _, err = await skep("check", "http://127.0.0.1:9", "--out", "", at=tmp_path)
    assert code == 1
    assert "Is a server running there?" in err
    assert not list(tmp_path.iterdir())
