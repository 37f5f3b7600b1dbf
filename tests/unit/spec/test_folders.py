from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.spec.folders import folders


def test_skep_home_holds_everything() -> None:
    found = folders({"SKEP_HOME": "/srv/skep", "XDG_STATE_HOME": "/x", "HOME": "/home/u"})
    assert found.runtime == Path("/srv/skep/run")
    assert found.models == Path("/srv/skep/data/models")
    assert all(
        str(path).startswith("/srv/skep") for path in (found.state, found.cache, found.config, found.engines)
    )


def test_the_xdg_folders_are_used_without_it() -> None:
    found = folders({"HOME": "/home/u", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/run/user/1"})
    assert found.runtime == Path("/run/user/1/skep")
    assert found.cache == Path("/c/skep")
    assert found.state == Path("/home/u/.local/state/skep")
    assert folders({"HOME": "/home/u"}).runtime == Path("/home/u/.local/state/skep/run")


@pytest.mark.parametrize(
    "environment", [{}, {"SKEP_HOME": "relative"}, {"HOME": "x"}, {"HOME": "/h", "XDG_RUNTIME_DIR": "r"}]
)
def test_an_environment_without_a_place_says_what_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig, match=r"SKEP_HOME|HOME|XDG"):
        folders(environment)
