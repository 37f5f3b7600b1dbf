"""`[[hive]]` tables: what is wrong is told with the path that it stands at."""

from typing import Any

import pytest

from skep.errors import InvalidConfig
from skep.spec.host import HiveHost, Install, LocalInstall, hosts_of, is_same_login

INSTALL = {"local": {"path": "x"}}
GOOD: dict[str, Any] = {"alias": "a", "hostname": "h", "install": INSTALL}


@pytest.mark.parametrize(
    ("more", "path", "says"),
    [
        ({"alias": "my host"}, "hive[0].alias", "alias must be letters"),
        ({"alias": "hôte"}, "hive[0].alias", "alias must be letters"),
        ({"hostname": "h; rm"}, "hive[0].hostname", "hostname 'h; rm' is not one"),
        ({"address": "a b"}, "hive[0].address", "address 'a b' is not one"),
        ({"ssh_user": "-oProxyCommand=x"}, "hive[0].ssh_user", "is not one"),
        ({"ssh_port": 0}, "hive[0].ssh_port", "1..65535"),
        ({"hive_port": 70000}, "hive[0].hive_port", "1..65535"),
        ({"queen": "queen:8081"}, "hive[0].queen", "must be a URL"),
        ({"install": {}}, "hive[0].install", "exactly one"),
        ({"install": {"git": {"repo": "-x"}}}, "hive[0].install.git", "must not start"),
        (
            {"install": {"release": {"url": "http://far/x", "sha256": "0" * 64}}},
            "hive[0].install.release.url",
            "https",
        ),
        ({"workers": [{"type": "x"}, {"type": "y y"}]}, "hive[0].workers[1].type", "'y y' is not a name"),
        ({"workers": [{"type": "x", "features": ["warp"]}]}, "hive[0].workers[0].features", "no feature"),
        ({"workers": [{"type": "x"}, {"type": "x"}]}, "hive[0].workers[1]", "declared twice"),
        ({"workers": [{"type": "x", "verion": "1"}]}, "hive[0].workers[0].verion", "is not a field"),
        ({"wrokers": []}, "hive[0].wrokers", "is not a field"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(more: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says) as caught:
        hosts_of([GOOD | more], {})
    assert caught.value.facts["path"] == path


def test_what_is_wrong_in_the_defaults_is_told_there() -> None:
    with pytest.raises(InvalidConfig) as caught:
        hosts_of([GOOD], {"ssh_port": 0})
    assert caught.value.facts["path"] == "hive_defaults.ssh_port"


def test_two_versions_of_one_engine_are_two_workers() -> None:
    (host,) = hosts_of(
        [GOOD | {"workers": [{"type": "x", "version": "1"}, {"type": "x", "version": "2"}]}], {}
    )
    assert len(host.workers) == 2


def test_two_hives_cannot_share_a_home() -> None:
    with pytest.raises(InvalidConfig, match="same login as 'a'") as caught:
        hosts_of([GOOD, GOOD | {"alias": "b", "hostname": "H"}], {})
    assert caught.value.facts["path"] == "hive[1].hostname"
    assert len(hosts_of([GOOD, GOOD | {"alias": "b", "ssh_user": "other"}], {})) == 2
    assert len(hosts_of([GOOD, GOOD | {"alias": "b", "ssh_port": 23}], {})) == 2


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({}, {}, True),
        ({"hostname": "H"}, {}, True),
        ({"ssh_user": "u"}, {}, True),
        ({"ssh_user": "u"}, {"ssh_user": "v"}, False),
        ({"ssh_port": 23}, {}, False),
        ({"hostname": "g"}, {}, False),
    ],
)
def test_a_login_is_the_machine_the_port_and_the_user(one: dict, other: dict, is_same: bool) -> None:
    def made(more: dict) -> HiveHost:
        return HiveHost(
            **{"alias": "a", "hostname": "h", "install": Install(local=LocalInstall(path="x"))} | more
        )

    assert is_same_login(made(one), made(other)) is is_same
