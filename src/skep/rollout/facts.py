"""What one round trip tells of a host: the probe script, and its answer read back.

Login shells print banners, so the answer stands between two marks with a nonce; without the second mark nothing is
believed. Unknown is an error here, never an empty value that looks like "not installed".
"""

import re

import msgspec

from skep.errors.rollout import FactsUnreadable
from skep.rollout import layout
from skep.rollout.manifest import Manifest, decode
from skep.rollout.service import IS_SERVING

PYTHONS = "python3.14 python3.13 python3.12 python3.11 python3"
TOOLS = "git cmake make cc c++ nvcc hipcc glslc curl wget tar flock setsid sha256sum mktemp mkfifo timeout head uv systemctl loginctl"

READ_MANIFEST = f"""m=
if [ -r {layout.MANIFEST} ]; then
  while IFS= read -r l || [ -n "$l" ]; do m="$m$l"; done < {layout.MANIFEST}
fi
"""
"""Sh that puts the manifest into `m`: by builtins, for every process that a host must start is felt on small ones."""

# An interpreter whose name and place say all is believed; any other (a shim, another layout) is run, which costs ten times as much.
_FIND_PYTHON = f"""is_whole() {{
  for l in lib lib64; do
    [ -e "$1/$l/$2/venv/__init__.py" ] && [ -e "$1/$l/$2/ensurepip/__init__.py" ] && return 0
  done
  return 1
}}
for t in {PYTHONS}; do
  command -v "$t" >/dev/null 2>&1 || continue
  c=$(command -v "$t")
  if [ "$t" != python3 ] && is_whole "${{c%/bin/*}}" "$t"; then v=${{t#python}}
  else
    v=$("$t" -c 'import sys, importlib.util as u
sys.exit(sys.version_info < (3, 11) or not (u.find_spec("venv") and u.find_spec("ensurepip")) or print("%d.%d" % sys.version_info[:2]))' 2>/dev/null)
  fi
  [ -n "$v" ] && p python "$v	$c" && break
done
"""

PROBE = f"""N='@NONCE@'
cd "$HOME" || exit 70
p() {{ printf '%s\\t%s\\n' "$1" "$2"; }}
echo "$N begin"
p home "$HOME"
p uname "$(uname -sm)"
p time "$(date +%s)"
i=; [ -r /proc/self/status ] && while read -r k i _; do [ "$k" != Uid: ] || break; i=; done < /proc/self/status
[ -n "$i" ] || i=$(id -u)
p uid "$i"
p libc "$(getconf GNU_LIBC_VERSION 2>/dev/null || {{ ldd --version 2>&1 | head -n 1; }})"
for t in {TOOLS}; do command -v "$t" >/dev/null 2>&1 && p tool "$t"; done
{_FIND_PYTHON}f=$(LC_ALL=C df -Pk . 2>/dev/null); p df "${{f##*
}}"
d={layout.SHARE}; while [ ! -e "$d" ]; do case $d in */*) d=${{d%/*}};; *) d=.;; esac; done
[ -d "$d" ] && [ -w "$d" ] && p writable yes || p writable no
c=; [ -L {layout.CURRENT} ] && c=$(readlink {layout.CURRENT}); p current "$c"
c=; [ -L {layout.BIN}/skep ] && c=$(readlink {layout.BIN}/skep); p link "$c"
{{ [ -e {layout.BIN}/skep ] || [ -L {layout.BIN}/skep ]; }} && p command yes
for v in {layout.VERSIONS}/*/{layout.COMPLETE}; do [ -e "$v" ] && v=${{v%/*}} && p version "${{v##*/}}"; done
for w in {layout.WORKERS}/*; do [ -f "$w" ] && p worker "${{w##*/}}"; done
for u in {layout.UPLOADS}/*/*; do [ -f "$u" ] && p upload "$u"; done
{READ_MANIFEST}[ -e {layout.MANIFEST} ] && p manifest "$m"
[ -s {layout.DRAINED} ] && p drained yes
x="${{XDG_RUNTIME_DIR:-/run/user/$i}}"
[ -d "$x/systemd" ] && XDG_RUNTIME_DIR="$x" systemctl --user show-environment >/dev/null 2>&1 && p systemd_user yes || p systemd_user no
{IS_SERVING}p service "$s"
if command -v nvidia-smi >/dev/null 2>&1; then p gpu cuda; elif [ -e /proc/driver/nvidia/version ]; then p gpu cuda; fi
[ -e /dev/kfd ] && p gpu rocm
for d in /dev/dri/render*; do [ -e "$d" ] && p gpu vulkan && break; done
echo "$N end"
"""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it was read. `pythons` maps "3.11" to a path; `versions` are the whole ones; `time_s` is its clock.

    `has_command`: something is where the command `skep` goes; `link` is where that leads, if it is a link.
    """

    home: str
    kernel: str
    machine: str
    uid: int
    time_s: int
    free_bytes: int
    is_writable: bool
    libc: str = ""
    tools: frozenset[str] = frozenset()
    pythons: dict[str, str] = {}
    current: str = ""
    link: str = ""
    has_command: bool = False
    versions: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()
    uploads: frozenset[str] = frozenset()
    manifest: Manifest = Manifest()
    manifest_text: str = ""
    has_systemd_user: bool = False
    is_serving: bool = False
    has_drained: bool = False
    features: frozenset[str] = frozenset({"cpu"})

    @property
    def current_key(self) -> str:
        """The version that `current` names, if that version is whole."""
        key = self.current.rsplit("/", 1)[-1]
        return key if key in self.versions else ""


def probe_script(nonce: str) -> str:
    """Return the script that asks for everything at once."""
    return PROBE.replace("@NONCE@", nonce)


def parse(stdout: str, *, nonce: str, alias: str) -> HostFacts:
    """Read the probe's answer, whatever a login shell printed around it. Raises: FactsUnreadable."""
    _, begin, rest = stdout.partition(f"{nonce} begin\n")
    body, end, _ = rest.partition(f"{nonce} end\n")
    if not begin or not end:
        tail = " / ".join(stdout.strip().splitlines()[-3:])
        raise FactsUnreadable(f"{alias}: the probe did not finish; it said: {tail or 'nothing'}", alias=alias)
    values: dict[str, list[str]] = {}
    for line in body.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            values.setdefault(name, []).append(value)
    try:
        return _facts(values)
    except (KeyError, ValueError, IndexError, msgspec.DecodeError) as error:
        raise FactsUnreadable(f"{alias}: the probe's answer makes no sense ({error})", alias=alias) from error


def _facts(values: dict[str, list[str]]) -> HostFacts:
    def one(name: str) -> str:
        return values[name][0]

    pythons = dict(line.split("\t", 1) for line in reversed(values.get("python", ())))
    kernel, machine = one("uname").split()
    manifest_text = values.get("manifest", [""])[0]
    gpus = {*values.get("gpu", ())} | ({"metal"} if (kernel, machine) == ("Darwin", "arm64") else set())
    return HostFacts(
        home=one("home"),
        kernel=kernel,
        machine=machine,
        uid=int(one("uid")),
        time_s=int(one("time")),
        free_bytes=_free_bytes(one("df")),
        is_writable=one("writable") == "yes",
        libc=values.get("libc", [""])[0],
        tools=frozenset(values.get("tool", ())),
        pythons=pythons,
        current=one("current"),
        link=one("link"),
        has_command="command" in values,
        versions=frozenset(values.get("version", ())),
        workers=frozenset(values.get("worker", ())),
        uploads=frozenset(values.get("upload", ())),
        manifest=decode(manifest_text) if "manifest" in values else Manifest(),
        manifest_text=manifest_text,
        has_systemd_user=one("systemd_user") == "yes",
        has_drained="drained" in values,
        is_serving=one("service") == "running",
        features=frozenset({"cpu", *gpus}),
    )


def _free_bytes(line: str) -> int:
    """Read the last line of `df -Pk`: names at both ends may hold spaces, the column of percents stands alone."""
    found = re.search(r"\s(\d+)\s+\d+%\s", line)
    if found is None:
        raise ValueError(f"df says {line!r}")
    return int(found[1]) * 1024
