"""`skep prove`: features against a fleet, and a bundle that says what happened.

Options come from flags, then the environment (`SKEP_…`, and the names of the family that came before), then defaults.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from skep.errors import InvalidConfig
from skep.errors.proof import InvalidRunId
from skep.proof.diff import disagreements
from skep.proof.identity import check_run_id, new_run_id
from skep.proof.reading import read_bundle
from skep.proof.records import Kind
from skep.testkit.levels import LEVELS

_PR_SET_PDEATHSIG = 1
OUT = ".proof_bundle"
FEATURE_FOLDERS = ("tests/features", "features")
_FEATURE_NAMES = ("SKEP_FEATURE_PATH", "LLORCH_BDD_FEATURE_PATH")
_RUN_ID_NAMES = ("SKEP_RUN_ID", "LLORCH_RUN_ID")
BACKENDS, DEVICES = ("fake", "llama"), ("fake", "real")
_EXIT = {0: 0, 1: 1, 2: 130, 3: 1, 4: 2, 5: 1}
"""pytest's exit codes as ours: nothing collected proves nothing, and so did not succeed."""


@dataclass(frozen=True)
class ProveOptions:
    """What to prove, and how."""

    paths: tuple[str, ...] = ()
    feature: str = ""
    tags: str = ""
    run_id: str = ""
    out: str = OUT
    url: str = ""
    level: str = ""
    backend: str = ""
    devices: str = ""
    replay: str = ""
    seed: int | None = None
    processes: str = ""
    is_dry: bool = False
    is_live: bool = False
    extra: tuple[str, ...] = ()
    command: str = field(default_factory=lambda: shlex.join(["skep", *sys.argv[1:]]))


def prove(options: ProveOptions) -> int:
    """Run the features; return the command's exit code. Raises: InvalidConfig, BundleNotFound.

    Several levels, with commas between them, are one run each, and a scenario on which they disagree is a failure.
    """
    options = resolved(options)
    levels = options.level.split(",")
    if len(levels) == 1 or options.is_dry:
        return _run(replace(options, level=levels[0]))
    base = options.run_id or new_run_id(at=time.time(), salt=str(os.getpid()))
    runs = {level: f"{base}-{level}" for level in levels}
    codes = [_run(replace(options, level=level, run_id=run_id)) for level, run_id in runs.items()]
    views = {level: read_bundle(Path(options.out) / Kind.BDD / run_id) for level, run_id in runs.items()}
    found = disagreements(views)
    for each in found:
        told = ", ".join(f"{level} {status}" for level, status in each.statuses.items())
        print(f"the levels disagree: {each.name} ({each.scenario}): {told}")  # noqa: T201 - the command's result
    if not found:
        print(f"the levels {', '.join(levels)} agree")  # noqa: T201 - the command's result
    return max(*codes, 1 if found else 0)


def _run(options: ProveOptions) -> int:
    argv = [sys.executable, "-m", "pytest", *arguments(options)]
    # In a process of its own: pytest can rewrite the assertions of our steps only where skep is not imported yet.
    with subprocess.Popen(argv, preexec_fn=_die_with_parent) as process:  # noqa: PLW1509 - one prctl, no threads here
        while True:
            try:
                return _EXIT.get(process.wait(), 1)
            except KeyboardInterrupt:
                continue  # pytest got it too, and finishes its bundle.


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def resolved(options: ProveOptions, environment: Mapping[str, str] | None = None) -> ProveOptions:
    """Fill in what the flags left open. Raises: InvalidConfig for what no run can be made of."""
    env = os.environ if environment is None else environment
    if options.replay:
        options = _replaying(options)
    for level in filter(None, options.level.split(",")):
        _check("--level", level, LEVELS)
    _check("--backend", options.backend, BACKENDS)
    _check("--devices", options.devices, DEVICES)
    _check_tags(options.tags)
    for path in options.paths:
        if not Path(path.partition("::")[0]).exists():
            raise InvalidConfig(
                f"{path} does not exist: name a folder of features, or a test file that binds them"
            )
    run_id = options.run_id or next((env[name] for name in _RUN_ID_NAMES if env.get(name)), "")
    try:
        run_id = run_id and check_run_id(run_id)
    except InvalidRunId as error:
        raise InvalidConfig(f"--run-id: {error}") from error
    feature = options.feature or next((env[name] for name in _FEATURE_NAMES if env.get(name)), "")
    return replace(
        options,
        paths=options.paths or (_default_folder(),),
        feature=feature,
        run_id=run_id,
    )


def _check_tags(tags: str) -> None:
    from _pytest.mark.expression import Expression

    try:
        Expression.compile(tags.replace("@", ""))
    except SyntaxError as error:
        raise InvalidConfig(
            f"--tags {tags} is no expression of tags: {error}; write for example '@a and not @b'"
        ) from error


def _check(option: str, value: str, known: Sequence[str]) -> None:
    if value and value not in known:
        raise InvalidConfig(f"{option} {value} is not known: take {', '.join(known)}")


def arguments(options: ProveOptions) -> list[str]:
    """Return pytest's command line for these options."""
    found = ["-p", "skep.testkit.plugin", "--skep-bdd", "--skep-ledger", "--skep-command", options.command]
    if find_spec("pytest_asyncio"):  # It warns where a suite does not say it.
        found += ["-o", "asyncio_default_fixture_loop_scope=function"]
    named = {
        "--skep-feature": options.feature,
        "--skep-tags": options.tags.replace("@", ""),  # pytest reads `@name` as a file of arguments.
        "--skep-run-id": options.run_id,
        "--skep-url": options.url,
        "--skep-level": options.level,
        "--skep-backend": options.backend,
        "--skep-devices": options.devices,
        "--skep-replay": options.replay,
        "--skep-seed": "" if options.seed is None else str(options.seed),
    }
    found += [part for name, value in named.items() if value for part in (name, value)]
    if options.is_dry:
        found += ["--collect-only", "-q"]
    else:
        found += ["--skep-proof", options.out]
        if options.processes:
            found += ["-n", options.processes]
    if options.is_live:
        found += ["-s", "--skep-live"]
    return [*found, *options.extra, *options.paths]


def _default_folder() -> str:
    found = next((each for each in FEATURE_FOLDERS if Path(each).is_dir()), "")
    if not found:
        raise InvalidConfig(
            f"no features here: name a folder, or make one of {' or '.join(FEATURE_FOLDERS)} (docs/write-a-feature.md)"
        )
    return found


def _replaying(options: ProveOptions) -> ProveOptions:
    """Take from the bundle what the flags do not say. Raises: BundleNotFound."""
    folder = find_bundle(options.replay, Path(options.out))
    recorded = read_bundle(folder).metadata.options
    paths: Sequence[str] = options.paths or tuple(filter(None, recorded.get("paths", "").split("\n")))
    return replace(
        options,
        replay=str(folder),
        paths=tuple(paths),
        feature=options.feature or recorded.get("feature", ""),
        tags=options.tags or recorded.get("tags", ""),
        level=options.level or recorded.get("level", ""),
        backend=options.backend or recorded.get("backend", ""),
        devices=options.devices or recorded.get("devices", ""),
        url=options.url or recorded.get("url", ""),
    )


def find_bundle(name: str, root: Path) -> Path:
    """Return the folder that a path, a run id, `kind/run_id` or `latest` names. Raises: BundleNotFound."""
    from skep.errors.proof import BundleNotFound
    from skep.proof.reading import list_bundles

    if (Path(name) / "metadata.json").is_file():
        return Path(name)
    for view in list_bundles(root):
        if name in {"latest", view.metadata.run_id, f"{view.metadata.kind}/{view.metadata.run_id}"}:
            return view.folder
    raise BundleNotFound(
        f"no proof bundle {name!r} below {root}: `skep proof list` shows what there is", name=name
    )
