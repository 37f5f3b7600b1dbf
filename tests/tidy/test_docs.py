"""The docs name only commands, make targets and files that exist."""

import re
from pathlib import Path

import pytest

from skep.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = [
    str(each.relative_to(ROOT))
    for folder in ("src", "tests", "benchmarks", "scripts")
    for each in (ROOT / folder).rglob("*.*")
]
FENCE = re.compile(r"^```(?:bash|sh|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    text = page.read_text()
    shown = "\n".join(FENCE.findall(text)) + "\n" + "\n".join(re.findall(r"`(skep [^`]+)`", text))
    unknown = {
        name
        for name in re.findall(r"(?:^|\$ |/bin/)skep ([a-z][a-z-]*)", shown, re.MULTILINE)
        if name not in COMMANDS
    }
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_a_page_shows_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    shown = "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))  # A tutorial's own files.
    gone = [
        name
        for name in re.findall(r"`([\w./-]+\.(?:py|feature))`", text)
        if name not in shown and not any(f"/{each}".endswith(f"/{name}") for each in SOURCES)
    ]
    assert not gone


def test_commands_of_the_table_load_and_have_help() -> None:
    from skep.cli.main import load

    for name, entry in COMMANDS.items():
        command = load(entry)
        assert command.help or getattr(command, "commands", None), name
