"""Scenarios of rollout on real sshd in network namespaces, where root allows: `--skep-level netns` runs all of them."""

import pytest
from pytest_bdd import scenario

from skep.testkit.hosts.netns import missing

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing() or "can run")]


@pytest.fixture
def hosts_level() -> str:
    return "netns"


@scenario("rollout.feature", "Many workers are installed on many hosts at once")
def test_many_workers() -> None: ...


@scenario("rollout.feature", "One host of three fails, and the next run finishes it")
def test_partial_failure() -> None: ...


@scenario("rollout.feature", "A login that is refused is not tried again")
def test_refused_login() -> None: ...


@scenario("rollout.feature", "Noise at login does not disturb")
def test_noise() -> None: ...
