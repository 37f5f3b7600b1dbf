"""`skep engine` and `skep model` follow the machine's configuration."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from skep.cli.engine import engine
from skep.cli.model import model
from skep.errors import InvalidConfig
from skep.errors.provision import ChecksumMismatch, StepForbidden

CONFIG = """
[provisioning]
allow = {allow}
cache_dir = "{cache}"
[[engine]]
id = "tool"
kind = "llama-server"
way = "binary"
url = "http://127.0.0.1:9/tool"
sha256 = "{digest}"
[[model]]
name = "small"
aliases = ["s"]
ref = "{model}"
sha256 = "{sha256}"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SKEP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"weights")
    return write(tmp_path)


def write(folder: Path, *, allow: str = '["download"]', sha256: str = "") -> Path:
    path = folder / "skep.toml"
    path.write_text(
        CONFIG.format(
            allow=allow, cache=folder / "cache", digest="a" * 64, model=folder / "m.gguf", sha256=sha256
        )
    )
    return path


def run(app, *argv: str) -> Result:
    return CliRunner().invoke(app, list(argv), catch_exceptions=False)


def test_a_plan_is_printed_and_nothing_is_done(config: Path, tmp_path: Path) -> None:
    shown = run(engine, "ensure", "tool", "--dry-run")
    assert "1. download: http://127.0.0.1:9/tool  (needs [provisioning] allow download)" in shown.stdout
    assert str(tmp_path / "cache" / "engines") in shown.stdout
    assert not (tmp_path / "cache").exists()
    steps = json.loads(run(engine, "ensure", "tool", "--dry-run", "--json").stdout)["steps"]
    assert [one["name"] for one in steps] == ["download", "unpack"]


def test_what_the_configuration_forbids_is_refused_by_hand_as_well(config: Path, tmp_path: Path) -> None:
    write(tmp_path, allow='["build"]')
    with pytest.raises(StepForbidden, match="download"):
        run(engine, "ensure", "tool")
    with pytest.raises(StepForbidden, match="download"):
        run(model, "ensure", "hf:owner/repo/m.gguf")


def test_an_engine_that_nobody_declared_is_told_with_those_that_are(config: Path) -> None:
    with pytest.raises(InvalidConfig, match="declares tool"):
        run(engine, "ensure", "nothing")


@pytest.mark.parametrize("name", ["small", "s"])
def test_a_model_is_known_by_its_name_and_aliases(config: Path, tmp_path: Path, name: str) -> None:
    assert run(model, "ensure", name).stdout.strip() == str(tmp_path / "m.gguf")
    assert json.loads(run(model, "ensure", name, "--json").stdout)["size_bytes"] == 7


def test_a_model_on_disk_is_held_to_its_checksum(config: Path, tmp_path: Path) -> None:
    write(tmp_path, sha256="b" * 64)
    with pytest.raises(ChecksumMismatch):
        run(model, "ensure", "small")


def test_nothing_yet_is_told_with_what_to_do(config: Path) -> None:
    assert "skep engine ensure" in run(engine, "list").stdout
    assert "skep model ensure" in run(model, "list").stdout
