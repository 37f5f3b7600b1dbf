"""Drift: what differs is told, and what cannot be known is never taken for a difference."""

from pathlib import Path

import pytest

from skep.errors import SkepError
from skep.errors.rollout import ArtifactMissing
from skep.rollout.artifact import Artifact, ArtifactKind
from skep.rollout.facts import HostFacts
from skep.rollout.manifest import Manifest, declared
from skep.rollout.report import Issue
from skep.rollout.status import Wanted, drift_of, wanted
from skep.spec.host import HiveHost, Install, LocalInstall, WorkerDecl

WANT = Wanted(Artifact(key="v2", kind=ArtifactKind.BINARY, source="x"), "configured")


def host(*workers: WorkerDecl, alias: str = "a", path: str = "x", **more) -> HiveHost:
    install = Install(local=LocalInstall(path=path))
    return HiveHost(alias=alias, hostname=alias, install=install, auto_start=False, workers=workers, **more)


def facts(*workers: WorkerDecl, on_disk: bool = True) -> HostFacts:
    installed = declared(workers)
    return HostFacts(
        home="/home/u",
        kernel="Linux",
        machine="x86_64",
        uid=1,
        time_s=1,
        free_bytes=1 << 40,
        is_writable=True,
        current="versions/v2",
        versions=frozenset({"v2"}),
        workers=frozenset(worker.slug for worker in installed) if on_disk else frozenset(),
        manifest=Manifest(key="v2", config_key="configured", workers=tuple(installed)),
    )


def issues(declaration: HiveHost, found: HostFacts, want: Wanted | SkepError = WANT) -> list[Issue]:
    return [drift.issue for drift in drift_of(declaration, found, want)]


ONE, TWO = WorkerDecl(type="x", version="1"), WorkerDecl(type="x", version="2")
CUDA = WorkerDecl(type="x", version="1", features=("cuda",))


@pytest.mark.parametrize(
    ("wants", "has", "expected"),
    [
        ((), (), []),
        ((ONE, TWO), (ONE, TWO), []),
        ((TWO, ONE), (ONE, TWO), []),
        ((ONE, TWO), (ONE,), [Issue.MISSING_WORKER]),
        ((ONE,), (ONE, TWO), [Issue.EXTRA_WORKER]),
        ((TWO,), (ONE,), [Issue.VERSION]),
        ((CUDA,), (ONE,), [Issue.FEATURES]),
        ((ONE, CUDA), (CUDA, ONE), []),
        ((ONE, WorkerDecl(type="y")), (CUDA,), [Issue.FEATURES, Issue.MISSING_WORKER]),
    ],
)
def test_engines_are_compared_one_by_one(
    wants: tuple[WorkerDecl, ...], has: tuple[WorkerDecl, ...], expected: list[Issue]
) -> None:
    assert issues(host(*wants), facts(*has)) == expected


def test_an_engine_that_is_only_in_the_manifest_is_missing() -> None:
    assert issues(host(ONE), facts(ONE, on_disk=False)) == [Issue.MISSING_WORKER]


def test_what_is_declared_and_cannot_be_looked_up_is_undetermined_and_the_engines_are_still_compared() -> (
    None
):
    error = ArtifactMissing("nothing there")
    assert issues(host(ONE), facts(), error) == [Issue.UNDETERMINED, Issue.MISSING_WORKER]


async def test_a_program_or_a_token_that_is_not_there_is_its_own_hosts_trouble(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    hosts = [
        host(alias="fine", path="there"),
        host(alias="lost", path="none"),
        host(alias="no-token", path="there", queen_token_file="none"),
    ]
    found = await wanted(hosts, base=tmp_path, cache=tmp_path / "cache")
    assert isinstance(found["fine"], Wanted)
    assert isinstance(found["lost"], ArtifactMissing)
    assert isinstance(found["no-token"], ArtifactMissing)
