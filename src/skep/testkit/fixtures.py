"""The fixtures of the kit, there in every suite that asks for `skep_bdd`. A suite's own of the same name win."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skep.errors import InvalidInput
from skep.process.guard import Guard
from skep.runtime.models import TINY
from skep.testkit.bdd.session import RECORDING, BddPlugin
from skep.testkit.faults.undone import Faults
from skep.testkit.fleet.daemon import Daemon
from skep.testkit.fleet.hub import FakeHub
from skep.testkit.fleet.lab import Lab
from skep.testkit.harness.worker import WorkerHarness
from skep.testkit.ledger.snapshot import Snapshot, take
from skep.testkit.levels import CAPABILITIES, DEFAULT_LEVEL, host_lab, missing
from skep.testkit.machine import machine_devices
from skep.testkit.world import World

LAB_S_MAX = 900.0
"""How long a lab may take to open: the first of a machine may make the image of its hosts."""


@pytest.fixture(scope="session")
def process_guard() -> Iterator[Guard]:
    """A watcher that ends what we started, also when we are killed."""
    with Guard() as guard:
        yield guard


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    """A model hub on loopback."""
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A real GGUF of a few hundred kilobytes that speaks sense."""
    return Path(TINY)


@pytest.fixture
def log_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where this test's processes write their logs: inside the proof bundle when there is one."""
    plugin = request.config.pluginmanager.get_plugin("skep-bdd")
    folder = plugin.folder if isinstance(plugin, BddPlugin) else None
    recording = request.node.stash.get(RECORDING, None)
    if folder is None or recording is None:
        found = tmp_path / "logs"
    else:
        name = "".join(each if each.isalnum() else "-" for each in recording.bound.id.rpartition("/")[2])
        found = folder / "logs" / name
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, tmp_path: Path, log_folder: Path, fake_hub: FakeHub, process_guard: Guard
) -> Iterator[Lab]:
    """A place for hives and queens; whatever they leave running is ended."""
    option = request.config.getoption
    place = Lab(
        tmp_path,
        logs=log_folder,
        hub=fake_hub,
        guard=process_guard,
        backend=option("skep_backend") or "fake",
        has_real_devices=option("skep_devices") == "real",
    )
    yield place
    try:
        place.close()
    finally:
        recording = request.node.stash.get(RECORDING, None)
        if recording is not None:
            inside = log_folder.parent.parent
            recording.logs += [
                path.relative_to(inside).as_posix() for path in sorted(log_folder.glob("*.log"))
            ]


@pytest.fixture
def fake_devices(world: World) -> Callable[..., None]:
    """Declare fake devices before the hive starts: `fake_devices(index, memory_bytes, temperature_c=…)`."""
    return world.fake_devices().add_device


@pytest.fixture
def world(lab: Lab, request: pytest.FixtureRequest) -> World:
    """What the steps share."""
    url = request.config.getoption("skep_url")
    return World(lab=lab, hive_url=url or "", is_external=bool(url))


@pytest.fixture
def hive(lab: Lab) -> Daemon:
    """A running hive."""
    return lab.start_hive()


@pytest.fixture
def queen(lab: Lab) -> Daemon:
    """A running queen."""
    return lab.start_queen()


@pytest.fixture
def fleet(lab: Lab, queen: Daemon) -> tuple[Daemon, Daemon]:
    """A queen and a hive that is registered with it."""
    node = lab.start_hive(queen=queen.report["admin"])
    lab.until(lambda: (node.ask("/v2/state").body or {}).get("registered"), what="the hive is registered")
    return queen, node


@pytest.fixture
def worker(portal: Any, log_folder: Path, request: pytest.FixtureRequest) -> Iterator[WorkerHarness]:
    """A running worker on the run's backend; with `--devices real` on the first accelerator that is here, else on the CPU."""
    backend = request.config.getoption("skep_backend") or "fake"
    model = "fake:demo?token_delay_ms=3" if backend == "fake" else str(TINY)
    if backend == "llama" and (reason := missing("llama")):
        pytest.skip(reason)
    wants_real = request.config.getoption("skep_devices") == "real"
    devices = next((each for each in machine_devices() if wants_real and each != "cpu"), "cpu")
    found = portal.call(WorkerHarness.start(model, devices, backend=backend, log_dir=log_folder))
    yield found
    portal.call(found.aclose())


@pytest.fixture
def faults(seed: int, portal: Any) -> Iterator[Faults]:
    """Faults drawn from this test's seed, undone at its end: `kill`, `hang`, `starve`, `proxy`."""
    with Faults(seed, portal) as found:
        yield found


@pytest.fixture
def hosts_level(request: pytest.FixtureRequest) -> str:
    """The level of `hosts`: what the run asks for, loopback by default. A module may fix its own by this name."""
    return str(request.config.getoption("skep_level") or DEFAULT_LEVEL)


@pytest.fixture
def hosts(request: pytest.FixtureRequest, hosts_level: str, portal: Any, tmp_path: Path) -> Iterator[Any]:
    """Three hosts that rollout can reach, at the level of `hosts_level`."""
    level = hosts_level
    if reason := missing(level) if level in CAPABILITIES else "":
        pytest.skip(reason)
    if recording := request.node.stash.get(RECORDING, None):
        recording.level = level
    try:
        lab = host_lab(level, tmp_path / "hosts")
    except InvalidInput as error:
        pytest.skip(str(error))
    portal.call(lab.__aenter__(), within_s=LAB_S_MAX)
    try:
        yield lab
    finally:
        portal.call(lab.__aexit__(None, None, None))


@pytest.fixture
def kube() -> Iterator[Any]:
    """A Kubernetes API server on loopback."""
    from skep.testkit.kube import FakeKubeApi

    with FakeKubeApi() as api:
        yield api


@pytest.fixture
def ledger() -> Callable[[], Snapshot]:
    """Look at what this process holds: children, fds, threads, temporary files."""
    return take


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Path | None:
    """The folder of this run's proof bundle, for further evidence; None when none is written."""
    plugin = request.config.pluginmanager.get_plugin("skep-bdd")
    return plugin.folder if isinstance(plugin, BddPlugin) else None
