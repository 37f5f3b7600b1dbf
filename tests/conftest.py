"""What every test of this project shares: skips that say why."""

import importlib.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("xllamacpp") is not None or importlib.util.find_spec("llama_cpp") is not None:
        return
    reason = pytest.mark.skip(reason="no llama.cpp library: install skep with its default dependencies")
    for item in items:
        if item.get_closest_marker("llama"):
            item.add_marker(reason)
