"""The scenarios of rollout at other levels than loopback: all of them scripted; some with real sshd, where root allows."""

import pytest
from pytest_bdd import scenario, scenarios

from skep.testkit.hosts import container, netns

scenarios("rollout.feature")


@pytest.fixture
def rollout_level(request: pytest.FixtureRequest) -> str:
    """What a test's marker says, else scripted."""
    marker = request.node.get_closest_marker("hosts_level")
    return marker.args[0] if marker else "scripted"
