"""What a host still lacks: a pure function from its declaration and its facts to steps."""

import msgspec

from skep.errors.rollout import ImpossibleHere, NothingToRollBack
from skep.rollout import layout, recipes, staging
from skep.rollout.artifact import Artifact, ArtifactKind
from skep.rollout.facts import HostFacts
from skep.rollout.manifest import InstalledWorker, Manifest, declared
from skep.rollout.steps import RemoteStep, Upload
from skep.spec.host import HiveHost

SPARE_BYTES = 200 << 20
AGAIN = "~"  # Between a key and the number of its forced reinstall.
NEEDED_TOOLS = (
    ("flock", "util-linux"),
    ("setsid", "util-linux"),
    ("sha256sum", "coreutils"),
    ("timeout", "coreutils"),
)
PYTHONS = ("3.14", "3.13", "3.12", "3.11")
NEEDS_PYTHON = frozenset({ArtifactKind.WHEEL, ArtifactKind.WHEELHOUSE, ArtifactKind.GIT})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asked for beside the configuration."""

    force: bool = False
    remove_extra: bool = False
    rollback: bool = False


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """The queen's token on the controller: the file to send, and its digest, which tells a changed one."""

    path: str = ""
    digest: str = ""


NO_TOKEN = Token()


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one host. No steps: it is in its declared state. `replaces` tells a first install from an upgrade."""

    alias: str
    key: str
    replaces: str
    steps: tuple[RemoteStep, ...]
    uploads: tuple[Upload, ...]
    workers_added: tuple[str, ...] = ()
    workers_removed: tuple[str, ...] = ()

    @property
    def is_noop(self) -> bool:
        """True when nothing needs to be done."""
        return not self.steps


def plan(
    host: HiveHost,
    facts: HostFacts,
    artifact: Artifact,
    options: Options,
    *,
    now_s: float,
    token: Token = NO_TOKEN,
) -> HostPlan:
    """Return what brings the host to its declared state.

    Raises: ImpossibleHere (everything that is lacking, at once), NothingToRollBack.
    """
    if options.rollback:
        return _rollback(host, facts, now_s)
    artifact = _keyed(artifact, facts, options)
    _check(host, facts, artifact, options)
    config_key = recipes.config_key(host, token.digest)
    is_configured = facts.manifest.config_key == config_key
    steps = [
        *_install_steps(host, facts, artifact, is_configured=is_configured),
        *_worker_steps(host, facts, options),
    ]
    installs = not _is_installed(facts, artifact)
    restarts = _runs(host, facts) and (installs or not is_configured or not facts.is_serving)
    if restarts:
        steps += _start_steps(host, facts)
    if steps:
        # Last: until the manifest names the new version, the next run takes the work up again.
        steps.append(recipes.record(_manifest(host, facts, artifact, options, now_s, config_key)))
    if installs and (old := recipes.prune(_kept(facts, artifact), facts.versions)):
        steps.append(old)
    return HostPlan(
        alias=host.alias,
        key=artifact.key,
        replaces=facts.current_key if installs else "",
        steps=tuple(steps),
        uploads=_uploads(facts, artifact, "" if installs is False and is_configured else token.path),
        workers_added=tuple(worker.slug for worker in _missing_workers(host, facts, options)),
        workers_removed=tuple(worker.slug for worker in _extra_workers(host, facts, options)),
    )


def stages(host: HiveHost, facts: HostFacts, artifact: Artifact, options: Options) -> bool:
    """True when the host's version is still to be filled. Raises: ImpossibleHere, before anything is built for it."""
    if options.rollback:
        return False
    keyed = _keyed(artifact, facts, options)
    _check(host, facts, keyed, options)
    return keyed.key not in facts.versions


def _keyed(artifact: Artifact, facts: HostFacts, options: Options) -> Artifact:
    return msgspec.structs.replace(artifact, key=_target_key(artifact, facts, options))


def _target_key(artifact: Artifact, facts: HostFacts, options: Options) -> str:
    """Return the version's folder name. A forced reinstall gets one of its own: what runs is never written over."""
    mine = [key for key in facts.versions | {facts.manifest.key} if key.partition(AGAIN)[0] == artifact.key]
    if not options.force:
        return facts.current_key if facts.current_key in mine else max(mine, key=_again, default=artifact.key)
    number = 1 + max(map(_again, mine), default=0)
    return f"{artifact.key}{AGAIN}{number}" if mine else artifact.key


def _again(key: str) -> int:
    return int(key.partition(AGAIN)[2] or 1)


def _is_installed(facts: HostFacts, artifact: Artifact) -> bool:
    return facts.current_key == artifact.key == facts.manifest.key and facts.link == recipes.BIN_LINK


def _install_steps(
    host: HiveHost, facts: HostFacts, artifact: Artifact, *, is_configured: bool
) -> list[RemoteStep]:
    if _is_installed(facts, artifact):
        return [] if is_configured else [recipes.configure(host, artifact.key, is_kept=True)]
    steps = []
    if artifact.key not in facts.versions:
        fetched = staging.fetch(artifact)
        steps += [fetched] if fetched else []
        is_checked = staging.upload_path(artifact) not in facts.uploads
        staged = staging.stage(artifact, _python(facts) or staging.BY_UV, is_checked=is_checked)
        steps += [staged, staging.verify(artifact)]
    is_kept = artifact.key in facts.versions
    steps.append(recipes.configure(host, artifact.key, is_kept=is_kept))
    if facts.is_serving:
        steps.append(recipes.drain(host))
    return [*steps, _switch(facts, artifact.key, facts.current_key)]


def _switch(facts: HostFacts, key: str, previous: str) -> RemoteStep:
    return recipes.switch(key, previous, is_linked=facts.link == recipes.BIN_LINK)


def _runs(host: HiveHost, facts: HostFacts) -> bool:
    """True when the hive is to run after a change: also one that is not declared to start, where it serves already."""
    return host.auto_start or facts.is_serving


def _start_steps(host: HiveHost, facts: HostFacts) -> list[RemoteStep]:
    steps = [recipes.start_service(facts), recipes.gate(host, _python(facts))]
    return [*steps, recipes.resume(host)] if facts.is_serving or facts.has_drained else steps


def _worker_steps(host: HiveHost, facts: HostFacts, options: Options) -> list[RemoteStep]:
    missing = _missing_workers(host, facts, options)
    return [
        *([recipes.engines(missing)] if missing else []),
        *(recipes.remove_engine(worker) for worker in _extra_workers(host, facts, options)),
    ]


def _uploads(facts: HostFacts, artifact: Artifact, token_file: str) -> tuple[Upload, ...]:
    found = []
    upload = staging.upload_of(artifact)
    if upload and artifact.key not in facts.versions and upload.target not in facts.uploads:
        found.append(upload)
    if token_file:  # By file transfer: a script's text can be seen in the host's list of processes.
        found.append(Upload(source=token_file, target=layout.HIVE_TOKEN, sha256=""))
    return tuple(found)


def _kept(facts: HostFacts, artifact: Artifact) -> set[str]:
    """Return the versions that stay: the new one, and the one before it for a rollback."""
    return {
        artifact.key,
        facts.current_key if facts.current_key != artifact.key else facts.manifest.previous_key,
    }


def plan_uninstall(alias: str, facts: HostFacts) -> HostPlan:
    """Return what removes skep from a host that is no longer declared."""
    installed = facts.manifest.key or facts.current_key
    return HostPlan(
        alias=alias, key="", replaces=installed, steps=(recipes.uninstall(),) if installed else (), uploads=()
    )


def plan_put_back(host: HiveHost, facts: HostFacts) -> HostPlan:
    """Return what brings the version back that `facts` found: the answer to a gate that failed after the switch."""
    steps = [_switch(facts, facts.current_key, "")]
    if _runs(host, facts):
        steps += _start_steps(host, facts)
    return HostPlan(alias=host.alias, key=facts.current_key, replaces="", steps=tuple(steps), uploads=())


def _rollback(host: HiveHost, facts: HostFacts, now_s: float) -> HostPlan:
    previous = facts.manifest.previous_key
    if not previous or previous not in facts.versions:
        raise NothingToRollBack(f"{host.alias} keeps no earlier version", alias=host.alias)
    manifest = msgspec.structs.replace(
        facts.manifest,
        key=previous,
        previous_key=facts.current_key,
        installed_at_s=now_s,
        source="rollback",
        config_key="",
    )
    steps = [recipes.drain(host)] if facts.is_serving else []
    steps.append(_switch(facts, previous, facts.current_key))
    if _runs(host, facts):
        steps += _start_steps(host, facts)
    steps.append(recipes.record(manifest))
    return HostPlan(
        alias=host.alias, key=previous, replaces=facts.current_key, steps=tuple(steps), uploads=()
    )


def _missing_workers(host: HiveHost, facts: HostFacts, options: Options) -> list[InstalledWorker]:
    """Return the engines to ask for. One that the manifest does not list yet is asked for again: a run was interrupted there."""
    there = facts.workers & {worker.slug for worker in facts.manifest.workers}
    return [worker for worker in declared(host.workers) if options.force or worker.slug not in there]


def _extra_workers(host: HiveHost, facts: HostFacts, options: Options) -> list[InstalledWorker]:
    if not options.remove_extra:
        return []
    wanted = {worker.slug for worker in declared(host.workers)}
    return [worker for worker in facts.manifest.workers if worker.slug not in wanted]


def _manifest(
    host: HiveHost, facts: HostFacts, artifact: Artifact, options: Options, now_s: float, config_key: str
) -> Manifest:
    removed = {worker.slug for worker in _extra_workers(host, facts, options)}
    kept = {
        worker.slug: worker
        for worker in (*facts.manifest.workers, *declared(host.workers))
        if worker.slug not in removed
    }
    previous = facts.current_key if facts.current_key != artifact.key else facts.manifest.previous_key
    return Manifest(
        key=artifact.key,
        source=artifact.source,
        previous_key=previous,
        config_key=config_key,
        hive_port=host.hive_port,
        service="systemd" if facts.has_systemd_user else "supervisor",
        workers=tuple(kept.values()),
        installed_at_s=now_s,
    )


def python_version(facts: HostFacts) -> str:
    """Return the version of the interpreter that is used on a host ("3.12"); nothing where it has none."""
    return next((version for version in PYTHONS if version in facts.pythons), "")


def _python(facts: HostFacts) -> str:
    return facts.pythons.get(python_version(facts), "")


def _check(host: HiveHost, facts: HostFacts, artifact: Artifact, options: Options) -> None:
    lacks = [] if facts.is_writable else [f"{facts.home} cannot be written: check its owner and its mount"]
    if facts.has_command and facts.link != recipes.BIN_LINK and not options.force:
        lacks.append(
            f"~/{layout.BIN}/skep is there and is not rollout's: move it away, or replace it with --force"
        )
    lacks += [
        f"{tool} is missing (sudo apt-get install {package})"
        for tool, package in NEEDED_TOOLS
        if tool not in facts.tools
    ]
    if artifact.key not in facts.versions:
        lacks += _stage_lacks(host, facts, artifact)
    lacks += [
        f"worker {worker.type} wants {feature}, which this host does not have (it has {', '.join(sorted(facts.features))})"
        for worker in host.workers
        for feature in worker.features
        if feature not in facts.features
    ]
    if lacks:
        raise ImpossibleHere(f"{host.alias}: {'; '.join(lacks)}", alias=host.alias, lacks=lacks)


def _stage_lacks(host: HiveHost, facts: HostFacts, artifact: Artifact) -> list[str]:
    lacks = []
    if facts.free_bytes < SPARE_BYTES:
        lacks.append(
            f"only {facts.free_bytes >> 20} MiB are free in {facts.home}; {SPARE_BYTES >> 20} are needed"
        )
    is_sent = host.install.via == "controller"
    if artifact.kind in NEEDS_PYTHON and not _python(facts) and (is_sent or "uv" not in facts.tools):
        why = 'with via = "controller" uv may not download one' if is_sent else "no uv that could bring one"
        lacks.append(
            f"no Python 3.11 or newer with venv was found, and {why} (sudo apt-get install python3-venv)"
        )
    if artifact.is_gathered:
        from skep.rollout.target import lacks_of  # No part of a start that gathers no wheels.

        lacks += lacks_of(facts)
    if artifact.kind is ArtifactKind.GIT and "git" not in facts.tools:
        lacks.append('git is missing (sudo apt-get install git), or set install.via = "controller"')
    if artifact.url and not artifact.file and not is_sent and not facts.tools & {"curl", "wget"}:
        lacks.append('neither curl nor wget is there, or set install.via = "controller"')
    return lacks
