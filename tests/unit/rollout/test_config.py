"""Declarations: the files that ship are valid, and any number of made-up hosts is."""

from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.rollout.config import load
from skep.spec.host import select
from skep.testkit.rollout import create_test_config

HOSTS = Path(__file__).parents[2] / "hosts"


@pytest.mark.parametrize("file", ["localhost.toml", "vagrant.toml"])
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
