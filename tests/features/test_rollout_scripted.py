"""Every scenario of rollout on hosts that are nothing but answers; what those cannot express is skipped with its reason."""

import pytest
from pytest_bdd import scenarios

scenarios("rollout.feature")


@pytest.fixture
def hosts_level() -> str:
    return "scripted"
