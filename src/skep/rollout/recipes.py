"""The steps after a version is staged: each function returns one, from values only. Paths are relative to the host's home."""

import hashlib
import json
from collections.abc import Sequence

from skep.rollout import layout, service
from skep.rollout.facts import HostFacts
from skep.rollout.manifest import InstalledWorker, Manifest, encode
from skep.rollout.staging import version_folder
from skep.rollout.steps import RemoteStep, q
from skep.spec.host import HiveHost

BIN_LINK = "../share/skep/current/bin/skep"
DRAIN_S = 30.0
ENGINE_S_MAX, GATE_S_MAX = 7200.0, 60.0


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
    """Return sh that makes `link` point to `target` at once: by its creation, or by one rename over the old one."""
    new = f"ln -sfn {q(target)} {q(link + '.new')}\n  mv -T {q(link + '.new')} {q(link)}\n"
    return f"if [ -L {q(link)} ] || [ -e {q(link)} ]; then\n  {new}else ln -s {q(target)} {q(link)}; fi\n"


def switch(key: str, previous: str, *, is_linked: bool) -> RemoteStep:
    """Make `current` name the version: one atomic rename, the only moment of change. `is_linked`: the command leads there."""
    keep = _replace_link(f"versions/{previous}", layout.PREVIOUS) if previous and previous != key else ""
    link = "" if is_linked else _replace_link(BIN_LINK, f"{layout.BIN}/skep")
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


def configure(host: HiveHost, key: str, *, is_kept: bool) -> RemoteStep:
    """Write the hive's own configuration beside its program, readable by nobody else.

    `is_kept`: the version was there before this run, so that one may be there to go back to: it is replaced whole.
    """
    target = f"{version_folder(key)}/hive.toml"
    text = hive_config(host)
    fill = ' | sed "s|@HOME@|$HOME|"' if "@HOME@" in text else ""
    script = f"printf '%s' {q(text)}{fill} > {q(target)}\n"
    if is_kept:
        script = f"printf '%s' {q(text)}{fill} > {q(target)}.new\nmv {q(target)}.new {q(target)}\n"
    return RemoteStep(name="configure", detail=target, script=script)


def engines(workers: Sequence[InstalledWorker]) -> RemoteStep:
    """Ask skep on the host for engines, side by side: those that share a build wait for each other there.

    By the hive's own configuration, so that an `[[engine]]` of it can be asked for and its `[provisioning]` holds.
    """
    lines = [f"mkdir -p {layout.WORKERS}", "pids="]
    for worker in workers:
        features = "".join(f" --feature {q(feature)}" for feature in worker.features)
        note = f"{layout.WORKERS}/{worker.slug}"
        ask = f'{layout.BIN}/skep engine ensure {q(worker.type)} --version {q(worker.version)}{features} --config "$HOME"/{layout.HIVE_CONFIG} --quiet --print-folder'
        lines.append(
            f'{{ {ask} </dev/null > {q(note + ".new")} && mv {q(note + ".new")} {q(note)}; }} & pids="$pids $!"'
        )
    lines += ["bad=0", 'for p in $pids; do wait "$p" || bad=$?; done', "exit $bad"]
    detail = ", ".join(worker.slug for worker in workers)
    return RemoteStep(name="engines", detail=detail, script="\n".join(lines) + "\n", limit_s=ENGINE_S_MAX)


# An engine's folder `$f` goes, unless the note of another worker names it too.
_DROP_ENGINE = (
    f'case "$f" in ""|/*|*..*) ;; *) grep -qxF -- "$f" {layout.WORKERS}/* 2>/dev/null || '
    f'rm -rf {layout.ENGINES}/"$f";; esac'
)


def remove_engine(worker: InstalledWorker) -> RemoteStep:
    """Remove an engine that the manifest lists and the configuration does not, unless another worker uses its folder."""
    note = q(f"{layout.WORKERS}/{worker.slug}")
    script = f"f=$(cat {note} 2>/dev/null || true)\nrm -f {note}\n{_DROP_ENGINE}\n"
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
    return RemoteStep(name="service", detail="own supervisor", script=service.start_supervised())


def gate(host: HiveHost, python: str) -> RemoteStep:
    """Wait until the new hive answers and, where it has a queen, is registered there; a failure shows its last lines."""
    where = (host.address or host.hostname) if host.queen_token_file else "127.0.0.1"
    url = f"http://{where}:{host.hive_port}{'/v2/state' if host.queen else '/health'}"
    token = f"$HOME/{layout.HIVE_TOKEN}" if host.queen_token_file else ""
    lacking = "is not registered with its queen" if host.queen else "does not answer"
    script = (
        f"{_asks(url, token, python, wants_queen=bool(host.queen))}"
        f"end=$(( $(date +%s) + {int(GATE_S_MAX)} ))\nuntil answers >/dev/null 2>&1; do\n"
        f"  if [ $(date +%s) -ge $end ]; then echo 'the hive {lacking}'; "
        f"tail -n 20 {layout.SERVICE_LOG} 2>/dev/null; exit 1; fi\n  sleep 0.25\ndone\n{service.STILL_OURS}"
    )
    return RemoteStep(name="gate", detail=url, script=script, limit_s=GATE_S_MAX * 3)


def _asks(url: str, token: str, python: str, *, wants_queen: bool) -> str:
    """Return the sh function `answers`. The token goes through a file or a pipe: an argument can be seen by others."""
    ask = (
        "import json, sys, urllib.request as u\n"
        "sent = {'Authorization': 'Bearer ' + open(sys.argv[2]).read().strip()} if sys.argv[2] else {}\n"
        "told = json.load(u.urlopen(u.Request(sys.argv[1], headers=sent), timeout=2))\n"
        f"sys.exit({'not told[' + repr('registered') + ']' if wants_queen else '0'})"
    )
    by_python = f'{q(python)} -c {q(ask)} {q(url)} "{token}"' if python else "false"
    header = f'printf \'header = "Authorization: Bearer %s"\' "$(cat "{token}")" | ' if token else ""
    by_curl = f"{header}curl -fsS -m 2 {'-K - ' if token else ''}{q(url)}"
    if wants_queen:
        return f"answers() {{ {by_python} || {by_curl} | grep -q '\"registered\": *true'; }}\n"
    return f"answers() {{ {by_python} || {by_curl} || wget -q -T 2 -O - {q(url)}; }}\n"


def prune(keep: set[str], present: frozenset[str]) -> RemoteStep | None:
    """Remove versions that are neither current nor kept for a rollback, and uploads that are used up."""
    old = sorted(present - keep)
    script = (
        "".join(f"rm -rf {q(version_folder(key))}\n" for key in old)
        + f"rm -rf {layout.UPLOADS} {layout.BUILD}\n"
    )
    return RemoteStep(name="prune", detail=", ".join(old), script=script) if old else None


def uninstall() -> RemoteStep:
    """Stop the hive and remove everything that rollout put on this host: engines that were brought by hand stay."""
    script = service.STOP + (
        f'for n in {layout.WORKERS}/*; do [ -f "$n" ] || continue; f=$(cat "$n"); rm -f "$n"; {_DROP_ENGINE}; done\n'
        f"rmdir {layout.ENGINES}/* {layout.ENGINES} 2>/dev/null || true\n"
        f'[ "$(readlink {layout.BIN}/skep)" != {q(BIN_LINK)} ] || rm -f {layout.BIN}/skep\n'
        f"rm -f {layout.UNIT} {layout.CURRENT} {layout.PREVIOUS}\n"
        f"rm -rf {layout.VERSIONS} {layout.WORKERS} {layout.UPLOADS} {layout.BUILD} {layout.HIVE_TOKEN} {layout.DRAINED}\n"
        f"rm -f {layout.MANIFEST} {service.LOGS}\n"
    )
    return RemoteStep(name="uninstall", detail="what the manifest lists", script=script)
