"""Where something in a skep.toml stands, however it is written."""

import pytest

from skep.spec.place import explained, line_of

TEXT = """\
# a comment with [brackets] and a = sign
top.dotted = 1

[hive_defaults]
text = '''
[[hive]]
alias = "inside a text"
'''
"ssh_port" = 22

[[hive]]
alias = "a # no comment"
workers = [
  { type = "x", features = ["cuda", "cpu"] },  # the first
  { type = "y",
    features = [ 1.5, 1979-05-27 07:32:00 ] },
]
install = { local = { path = "x" } }
config = \"\"\"
[hive_daemon]
bind = "inside \\\"\\\"\\\" too"
\"\"\"

[[hive]]
alias = "b"
  [hive.install.git]
  repo = "r"
  [[hive.workers]]
  type = "x"
  [[hive.workers]]
  type = "y"

[[hive]]
alias = "c"
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("top", 2),
        ("top.dotted", 2),
        ("hive_defaults", 4),
        ("hive_defaults.text", 5),
        ("hive_defaults.ssh_port", 9),
        ("hive[0]", 11),
        ("hive[0].alias", 12),
        ("hive[0].workers", 13),
        ("hive[0].workers[0].features[1]", 14),
        ("hive[0].workers[1]", 15),
        ("hive[0].workers[1].type", 15),
        ("hive[0].workers[1].features[0]", 16),
        ("hive[0].install.local.path", 18),
        ("hive[0].config", 19),
        ("hive[1].alias", 25),
        ("hive[1].install.git.repo", 27),
        ("hive[1].workers[1].type", 31),
        ("hive[2]", 33),
        ("hive[2].nothing.at[3].all", 33),
        ("hive[7]", 0),
        ("bind", 0),
    ],
)
def test_a_path_leads_to_the_line_that_sets_it_or_to_its_tables(path: str, line: int) -> None:
    assert line_of(TEXT, path) == line


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "a = 1", "[a]", '[a]\nb = """\n"""'])
def test_a_text_that_has_not_got_the_path_has_no_line_for_it(text: str) -> None:
    assert line_of(text, "x.y") == 0


@pytest.mark.parametrize(
    ("message", "path", "says"),
    [
        ("Object contains unknown field `nope`", "nope", "nope is not a field"),
        ("Object contains unknown field `b` - at `$.a[1]`", "a[1].b", "a[1].b is not a field"),
        ("Object missing required field `b` - at `$.a[1]`", "a[1]", "a[1] needs b"),
        ("Object missing required field `b`", "", "needs b"),
        ("Expected `int`, got `str` - at `$.a.b`", "a.b", "a.b: Expected `int`, got `str`"),
        ("Expected `object`, got `int`", "", "Expected `object`, got `int`"),
    ],
)
def test_a_message_is_told_with_its_path(message: str, path: str, says: str) -> None:
    found, text = explained(message)
    assert found == path
    assert text.startswith(says)
