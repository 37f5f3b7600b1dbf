"""Declarations: the files that ship are valid, and any number of made-up hosts is."""

from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.rollout.config import load
from skep.spec.host import select
from skep.testkit.rollout import create_test_config

HOSTS = Path(__file__).parents[2] / "hosts"


@pytest.mark.parametrize("file", ["localhost.toml", "vagrant.toml", "compose.toml"])
def test_the_files_for_people_with_hosts_are_valid(file: str) -> None:
    assert load(HOSTS / file).hosts


@pytest.mark.parametrize(("hives", "workers"), [(0, 0), (1, 0), (3, 2), (200, 5)])
def test_made_up_configurations_have_the_asked_size(hives: int, workers: int) -> None:
    hosts = create_test_config(hives, workers)
    assert [len(host.workers) for host in hosts] == [workers] * hives
    assert len({(host.alias, host.ssh_port) for host in hosts}) == hives


def test_hosts_are_picked_by_alias_or_tag_and_what_picks_nothing_is_told() -> None:
    hosts = create_test_config(3, 0)
    chosen, unknown = select(hosts, ["test-hive-1", "tag:none"])
    assert [host.alias for host in chosen] == ["test-hive-1"]
    assert unknown == ["tag:none"]


def test_an_error_in_a_table_points_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "skep.toml"
    path.write_text(
        '[[hive]]\nalias = "a"\nhostname = "h"\ninstall = { local = { path = "x" } }\nssh_port = "22"\n'
    )
    with pytest.raises(InvalidConfig, match=r"skep\.toml:5: hive 'a'"):
        load(path)


def test_a_doubled_alias_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "skep.toml"
    table = '[[hive]]\nalias = "a"\nhostname = "h"\ninstall = { local = { path = "x" } }\n'
    path.write_text(table * 2)
    with pytest.raises(InvalidConfig, match="two hives are called 'a'"):
        load(path)


GOOD = '[[hive]]\nalias = "a"\nhostname = "h"\ninstall = { local = { path = "x" } }\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "ssh_port = 70000\n", r"skep\.toml:5: hive 'a': ssh_port must be"),
        (
            GOOD + 'workers = [\n  { type = "x" },\n  { type = "y", verion = "1" },\n]\n',
            r"skep\.toml:7: .*verion",
        ),
        ("[hive_defaults]\n\nhive_port = 0\n" + GOOD, r"skep\.toml:3: hive 'a': hive_port"),
        (GOOD + "oops = = 1\n", r"skep\.toml:5: Invalid value"),
        (
            GOOD + 'config = """\n[[pool]]\nfoo = 1\n"""\n',
            r"skep\.toml:5: hive 'a': config:2: pool\[0\]\.foo",
        ),
        (GOOD + "config = '[[pool'\n", r"skep\.toml:5: hive 'a': config"),
        (GOOD + "config = '[hive_daemon]'\n", r"skep\.toml:5: hive 'a': config has \[hive_daemon\]"),
        ("[hive_defaults]\nconfig = '[nope]'\n" + GOOD, r"skep\.toml:2: hive 'a': config:1: nope"),
    ],
)
def test_every_error_points_at_the_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "skep.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=says):
        load(path)


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "skep.toml").write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(InvalidConfig, match=r"skep\.toml:2: this is not UTF-8"):
        load(tmp_path / "skep.toml")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_key_file_is_relative_to_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "skep.toml"
    for given, expected in [("id", str(tmp_path / "id")), ("/k/id", "/k/id"), ("~/id", "/home/me/id")]:
        path.write_text(GOOD + f'identity_file = "{given}"\n')
        assert load(path).hosts[0].identity_file == expected
