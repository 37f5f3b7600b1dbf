"""What `--help` teaches, of every command that there is, and what a failure tells people and scripts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from skep.cli import main
from skep.cli.main import COMMANDS, load


def commands(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and all below it, with the words that call it."""
    yield name, found
    for word, inner in getattr(found, "commands", {}).items():
        yield from commands(f"{name} {word}", inner)


EVERY = [each for name, entry in COMMANDS.items() for each in commands(name, load(entry))]


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_every_command_and_option_says_what_it_is_for(name: str, command: Any) -> None:
    assert command.help, f"skep {name}"
    for each in command.params:
        assert each.hidden or each.help, f"skep {name}: {each.name} has no help"


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_completion_is_installed_at_one_place(name: str, command: Any) -> None:
    flags = {flag for each in command.params for flag in each.opts}
    assert not flags & {"--install-completion", "--show-completion"}, f"skep {name}"


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, each) for name, each in EVERY if not getattr(each, "commands", None)],
    ids=[name for name, each in EVERY if not getattr(each, "commands", None)],
)
def test_every_command_shows_how_it_is_called(name: str, command: Any) -> None:
    assert f"skep {name.split(maxsplit=1)[0]}" in command.help, f"skep {name} has no example"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_failure_is_one_line_for_people_and_an_error_object_for_scripts(
    monkeypatch, capsys, tmp_path, as_json: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["skep", "proof", "show", "nothing", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    if as_json:
        error = json.loads(err)["error"]
        assert error["code"]
        assert "nothing" in error["message"]
    else:
        assert err.startswith("skep: ")
        assert err.count("\n") == 1
