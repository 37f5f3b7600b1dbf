"""Scenarios of rollout on containers with a Debian of their own: `--skep-level container` runs all of them."""

import pytest
from pytest_bdd import scenario

from skep.testkit.hosts.container import missing

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing()), reason=missing() or "can run"),
    pytest.mark.timeout(900),  # The first on a machine makes the image.
    pytest.mark.xdist_group("hosts"),
]


@pytest.fixture
def hosts_level() -> str:
    return "container"


@scenario("rollout.feature", "Many workers are installed on many hosts at once")
def test_many_workers() -> None: ...


@scenario("rollout.feature", "One host of three fails, and the next run finishes it")
def test_partial_failure() -> None: ...


@scenario("rollout.feature", "A login that is refused is not tried again")
def test_refused_login() -> None: ...


@scenario("rollout.feature", "Noise at login does not disturb")
def test_noise() -> None: ...
