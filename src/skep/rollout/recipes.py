"""The steps themselves: each function returns one, from values only. Paths are relative to the host's home."""

import hashlib
import json
from collections.abc import Sequence

from skep.rollout import layout, service
from skep.rollout.artifact import Artifact, ArtifactKind
from skep.rollout.facts import HostFacts
from skep.rollout.manifest import InstalledWorker, Manifest, encode
from skep.rollout.steps import RemoteStep, Upload, q
from skep.spec.host import HiveHost

BIN_LINK = "../share/skep/current/bin/skep"
DRAIN_S = 30.0
BUILD_S_MAX, ENGINE_S_MAX, GATE_S_MAX = 1800.0, 7200.0, 60.0


def upload_of(artifact: Artifact) -> Upload | None:
    """Return the file to send, under a name that says its content."""
    if not artifact.file:
        return None
    target = f"{layout.UPLOADS}/{artifact.sha256[:16]}/{artifact.name}"
    return Upload(source=artifact.file, target=target, sha256=artifact.sha256)


def version_folder(key: str) -> str:
    """Return the folder of one version."""
    return f"{layout.VERSIONS}/{key}"


def stage(artifact: Artifact, python: str) -> RemoteStep:
    """Fill the version's folder. What an interrupted run left there goes first; nobody runs it yet."""
    folder = version_folder(artifact.key)
    clean = f"[ ! -e {q(folder)} ] || rm -rf {q(folder)}\nmkdir -p {q(folder)}/bin\n"
    fetch, source = _fetched(artifact)
    match artifact.kind:
        case ArtifactKind.BINARY:
            fill = f"mv {source} {q(folder)}/bin/skep\nchmod 700 {q(folder)}/bin/skep\n"
        case ArtifactKind.ARCHIVE:
            fill = f"tar -xf {source} -C {q(folder)} --no-same-owner\n"
        case _:
            fill = _venv(artifact, folder=folder, python=python, source=source)
    return RemoteStep(
        name="stage",
        detail=f"{artifact.source} → {artifact.key}",
        script=clean + fetch + fill,
        limit_s=BUILD_S_MAX,
    )


def _fetched(artifact: Artifact) -> tuple[str, str]:
    """Return the script that brings the file to the host, and its path there, quoted."""
    upload = upload_of(artifact)
    if upload is not None:
        check = f"echo {q(artifact.sha256 + '  ' + upload.target)} | sha256sum -c - >/dev/null || {{ rm -f {q(upload.target)}; echo 'checksum wrong: it was damaged on its way'; exit 1; }}\n"
        return check, q(upload.target)
    if artifact.kind is ArtifactKind.GIT:
        build = f"{layout.BUILD}/{artifact.key}"
        return (
            f"rm -rf {q(build)}\nmkdir -p {q(build)}\ngit init -q {q(build)}\n"
            f"GIT_TERMINAL_PROMPT=0 git -C {q(build)} fetch -q --depth 1 -- {q(artifact.repo)} {q(artifact.commit)}\n"
            f"git -C {q(build)} checkout -q FETCH_HEAD\n"
        ), q(build)
    target = f"{layout.UPLOADS}/{artifact.sha256[:16]}/{artifact.name}"
    part = f"{target}.part"
    return (
        f"mkdir -p {q(target.rpartition('/')[0])}\n"
        f"[ -e {q(target)} ] || {{\n"
        f"  if command -v curl >/dev/null; then curl -fsSL --retry 3 -C - -o {q(part)} -- {q(artifact.url)}\n"
        f"  else wget -q -c -O {q(part)} -- {q(artifact.url)}; fi\n"
        f"  echo {q(artifact.sha256 + '  ' + part)} | sha256sum -c - >/dev/null || {{ rm -f {q(part)}; echo 'checksum wrong'; exit 1; }}\n"
        f"  mv {q(part)} {q(target)}\n}}\n"
    ), q(target)


def _venv(artifact: Artifact, *, folder: str, python: str, source: str) -> str:
    pip = f"{q(folder)}/venv/bin/python -m pip install --no-input --disable-pip-version-check -q"
    make = f"{q(python)} -m venv {q(folder)}/venv\n"
    link = f"ln -s ../venv/bin/skep {q(folder)}/bin/skep\n"
    if artifact.kind is ArtifactKind.WHEELHOUSE:
        house = f"{folder}/wheels"
        install = f"mkdir {q(house)}\ntar -xf {source} -C {q(house)}\n{pip} --no-index --find-links {q(house)} skep\nrm -rf {q(house)}\n"
    else:
        install = (
            f"{pip} -- ./{source}\n" if not source.startswith(("/", "'")) else f'{pip} -- "$PWD"/{source}\n'
        )
    return make + install + link


def verify(artifact: Artifact) -> RemoteStep:
    """Run what was staged; only then is its folder marked whole."""
    folder = version_folder(artifact.key)
    script = (
        f'{q(folder)}/{layout.EXECUTABLE} --version </dev/null || {{ echo "--version ended with $?"; exit 1; }}\n'
        f"{_synced(artifact, folder)}: > {q(folder)}/{layout.COMPLETE}\n"
    )
    return RemoteStep(name="verify", detail=f"{artifact.key} --version", script=script)


def _synced(artifact: Artifact, folder: str) -> str:
    """Return sh after which a power cut cannot take what was staged; a program alone needs no wait for other files."""
    what = f"{q(folder)}/{layout.EXECUTABLE}" if artifact.kind is ArtifactKind.BINARY else f"-f {q(folder)}"
    return f"sync {what} 2>/dev/null || sync\n"


def _pool_command(host: HiveHost, verb: str, rest: str = "") -> str:
    where, token = "127.0.0.1", ""
    if host.queen_token_file:
        where, token = host.address or host.hostname, f' --token-file "$HOME"/{layout.HIVE_TOKEN}'
    return f"{layout.BIN}/skep pool {verb} --hive http://{where}:{host.hive_port}{token}{rest} </dev/null"


def drain(host: HiveHost) -> RemoteStep:
    """Drain the pools that are loaded, so that running requests finish, and note which they were.

    A note of an interrupted sync is kept: its pools are offline by now, and are still to be loaded again.
    """
    script = (
        f"[ -s {layout.DRAINED} ] || {_pool_command(host, 'list', ' --loaded-ids')} > {layout.DRAINED}.new || true\n"
        f"[ -s {layout.DRAINED} ] || mv {layout.DRAINED}.new {layout.DRAINED}\n"
        f"pids=\nfor p in $(cat {layout.DRAINED}); do {_pool_command(host, 'drain', f' --deadline-s {DRAIN_S:g} --wait')} "
        '"$p" & pids="$pids $!"; done\n'
        'for p in $pids; do wait "$p" || echo "a pool did not drain in time; its requests end with it"; done\n'
    )
    return RemoteStep(name="drain", detail="running requests finish", script=script, limit_s=DRAIN_S * 3)


def resume(host: HiveHost) -> RemoteStep:
    """Load the pools again that `drain` drained."""
    script = (
        f"for p in $(cat {layout.DRAINED} 2>/dev/null); do {_pool_command(host, 'preload')} "
        '"$p" >/dev/null || { echo "pool $p is not loaded again"; exit 1; }; done\n'
        f"rm -f {layout.DRAINED}\n"
    )
    return RemoteStep(name="resume", detail="the drained pools are loaded again", script=script)


def _replace_link(target: str, link: str) -> str:
    """Return sh that makes `link` point to `target` in one rename."""
    return f"ln -sfn {q(target)} {q(link + '.new')}\nmv -T {q(link + '.new')} {q(link)}\n"


def switch(key: str, previous: str, *, is_linked: bool) -> RemoteStep:
    """Make `current` name the version: one atomic rename, the only moment of change. `is_linked`: the command leads there."""
    keep = _replace_link(f"versions/{previous}", layout.PREVIOUS) if previous and previous != key else ""
    link = "" if is_linked else f"mkdir -p {layout.BIN}\n" + _replace_link(BIN_LINK, f"{layout.BIN}/skep")
    script = keep + _replace_link(f"versions/{key}", layout.CURRENT) + link
    return RemoteStep(name="switch", detail=f"current → {key}", script=script)


def hive_config(host: HiveHost) -> str:
    """Return the hive's own skep.toml; `@HOME@` stands for the host's home."""
    daemon = {"bind": f"127.0.0.1:{host.hive_port}", "node_id": host.alias}
    if host.queen:
        daemon |= {"queen": host.queen}
    if host.queen_token_file:
        where = host.address or host.hostname
        daemon |= {
            "bind": f"{where}:{host.hive_port}",
            "worker_host": where,
            "token_file": "@HOME@/" + layout.HIVE_TOKEN,
        }
    # A JSON string is a TOML basic string.
    table = "\n".join(["[hive_daemon]", *(f"{name} = {json.dumps(value)}" for name, value in daemon.items())])
    return f"# Written by skep sync; changes are overwritten.\n{host.config}\n{table}\n"


def config_key(host: HiveHost, token_digest: str) -> str:
    """Return the identity of a host's configuration and token: another key means that it must be written anew."""
    return hashlib.sha256((hive_config(host) + token_digest).encode()).hexdigest()[:16]


def configure(host: HiveHost, key: str) -> RemoteStep:
    """Write the hive's own configuration beside its program, readable by nobody else."""
    target = f"{version_folder(key)}/hive.toml"
    text = hive_config(host)
    fill = ' | sed "s|@HOME@|$HOME|"' if "@HOME@" in text else ""
    script = f"printf '%s' {q(text)}{fill} > {q(target)}.new\nmv {q(target)}.new {q(target)}\n"
    return RemoteStep(name="configure", detail=target, script=script)


def engines(workers: Sequence[InstalledWorker]) -> RemoteStep:
    """Ask skep on the host for engines, side by side: those that share a build wait for each other there."""
    lines = [f"mkdir -p {layout.WORKERS}", "pids="]
    for worker in workers:
        features = "".join(f" --feature {q(feature)}" for feature in worker.features)
        note = f"{layout.WORKERS}/{worker.slug}"
        ask = f"{layout.BIN}/skep engine ensure {q(worker.type)} --version {q(worker.version)}{features} --quiet --print-folder"
        lines.append(
            f'{{ {ask} </dev/null > {q(note + ".new")} && mv {q(note + ".new")} {q(note)}; }} & pids="$pids $!"'
        )
    lines += ["bad=0", 'for p in $pids; do wait "$p" || bad=$?; done', "exit $bad"]
    detail = ", ".join(worker.slug for worker in workers)
    return RemoteStep(name="engines", detail=detail, script="\n".join(lines) + "\n", limit_s=ENGINE_S_MAX)


def remove_engine(worker: InstalledWorker) -> RemoteStep:
    """Remove an engine that the manifest lists and the configuration does not, unless another worker uses its folder."""
    note = f"{layout.WORKERS}/{worker.slug}"
    script = (
        f"f=$(cat {q(note)} 2>/dev/null || true)\nrm -f {q(note)}\n"
        f'case "$f" in ""|/*|*..*) ;; *) grep -qxF -- "$f" {layout.WORKERS}/* 2>/dev/null || rm -rf {layout.ENGINES}/"$f";; esac\n'
    )
    return RemoteStep(name=f"remove-{worker.slug}", detail=f"{worker.type} {worker.version}", script=script)


def record(manifest: Manifest) -> RemoteStep:
    """Replace the manifest, whole or not at all."""
    script = (
        f"printf '%s\\n' {q(encode(manifest))} > {layout.MANIFEST}.new\n"
        f"sync {layout.MANIFEST}.new 2>/dev/null || sync\nmv {layout.MANIFEST}.new {layout.MANIFEST}\n"
    )
    return RemoteStep(name="record", detail=layout.MANIFEST, script=script)


def start_service(facts: HostFacts) -> RemoteStep:
    """Start or restart the hive: by systemd's user manager where there is one, else by a small supervisor of ours."""
    if facts.has_systemd_user:
        return RemoteStep(name="service", detail="systemd --user", script=service.START_BY_SYSTEMD)
    return RemoteStep(name="service", detail="own supervisor", script=service.START_SUPERVISED)


def gate(host: HiveHost, python: str) -> RemoteStep:
    """Wait until the new hive answers, and is registered where it should be; a failure shows the hive's last lines."""
    where = (host.address or host.hostname) if host.queen_token_file else "127.0.0.1"
    url = f"http://{where}:{host.hive_port}/health"
    ask = f"import urllib.request as u; u.urlopen({url!r}, timeout=2).read()"
    by_python = f"{q(python)} -c {q(ask)}" if python else "false"
    script = (
        f"end=$(( $(date +%s) + {int(GATE_S_MAX)} ))\n"
        f"until {{ {by_python} || curl -fsS -m 2 {q(url)} || wget -q -T 2 -O - {q(url)}; }} >/dev/null 2>&1; do\n"
        "  if [ $(date +%s) -ge $end ]; then echo 'the hive does not answer'; "
        f"tail -n 20 {layout.SERVICE_LOG} 2>/dev/null; exit 1; fi\n  sleep 0.25\ndone\n{service.STILL_OURS}"
    )
    return RemoteStep(name="gate", detail=url, script=script, limit_s=GATE_S_MAX * 3)


def prune(keep: set[str], present: frozenset[str]) -> RemoteStep | None:
    """Remove versions that are neither current nor kept for a rollback, and uploads that are used up."""
    old = sorted(present - keep)
    script = (
        "".join(f"rm -rf {q(version_folder(key))}\n" for key in old)
        + f"rm -rf {layout.UPLOADS} {layout.BUILD}\n"
    )
    return RemoteStep(name="prune", detail=", ".join(old), script=script) if old else None


def uninstall() -> RemoteStep:
    """Stop the hive and remove everything that skep put on this host."""
    script = service.STOP + (
        f"rm -f {layout.BIN}/skep {layout.UNIT} {layout.CURRENT} {layout.PREVIOUS}\n"
        f"rm -rf {layout.VERSIONS} {layout.ENGINES} {layout.WORKERS} {layout.UPLOADS} {layout.BUILD} {layout.HIVE_TOKEN} {layout.DRAINED}\n"
        f"rm -f {layout.MANIFEST} {layout.SERVICE_LOG}\n"
    )
    return RemoteStep(name="uninstall", detail="what the manifest lists", script=script)
