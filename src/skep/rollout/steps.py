"""Steps on a host, and the one script that they are merged into.

Every value that comes from outside enters a script through `shlex.quote`, and only here and in `recipes`.
The script runs under flock: its children inherit the lock, so the lock lives exactly as long as the last of them,
also when the controller, the connection or the shell dies.
"""

import shlex
from collections.abc import Sequence
from typing import Final

import msgspec

from skep.rollout import layout
from skep.rollout.facts import READ_MANIFEST

# Long enough for a script whose connection was cut to be ended by its watchdog.
LOCK_WAIT_S: Final = 10
EXIT_BUSY: Final = 75
EXIT_CHANGED: Final = 76
EXIT_STEP_FAILED: Final = 77
EXIT_UNHEARD: Final = 78
HEAR_S_MAX: Final = 60
COMMITS: Final = frozenset({"drain", "switch", "uninstall", "service"})
"""Steps that change what serves. The host asks before them: one that can no longer hear us keeps its old version."""


class RemoteStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step: sh text that runs with `set -eu` in the home folder. `limit_s` bounds it."""

    name: str
    detail: str
    script: str
    limit_s: float = 120.0


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file to send before the steps run, to a path below the home folder. Skipped when it is there already."""

    source: str
    target: str
    sha256: str
    mode: int = 0o600


class Receive(msgspec.Struct, frozen=True, kw_only=True):
    """An upload whose size is known: the script takes so many bytes from its stdin when it says that it begins `send`."""

    upload: Upload
    size_bytes: int


def q(value: object) -> str:
    """Quote a value for sh."""
    return shlex.quote(str(value))


def render(
    steps: Sequence[RemoteStep], *, nonce: str, manifest_text: str, receives: Sequence[Receive] = ()
) -> str:
    """Return the script of all uploads and steps. It tells each one's begin and end with the nonce, and stops at a failure.

    `manifest_text` is the manifest as it was when the plan was made: a host that changed since is left alone.
    """
    head = f"""N={q(nonce)}
cd "$HOME" || exit 70
umask 077
[ -d {layout.SHARE} ] || mkdir -p {layout.SHARE}
exec 9>{layout.LOCK}
flock -w {LOCK_WAIT_S} 9 || {{ echo "$N busy"; exit {EXIT_BUSY}; }}
{READ_MANIFEST}[ "$m" = {q(manifest_text)} ] || {{ echo "$N changed"; exit {EXIT_CHANGED}; }}
run() {{
  echo "$N begin $1"
  ( set -eu; eval "$2" ) 2>&1 </dev/null
  s=$?
  [ $s = 0 ] || {{ echo "$N failed $1 $s"; exit {EXIT_STEP_FAILED}; }}
  echo "$N done $1"
}}
"""
    asked = False
    lines = [_TAKE] if receives else []
    lines += [_take(receive) for receive in receives]
    for step in steps:
        if step.name in COMMITS and not asked:
            asked = True
            lines.append(_ASK)
        lines.append(f"run {q(step.name)} {q(step.script)}\n")
    return head + "".join(lines)


# `head` of coreutils and of busybox takes no byte more than it was told to where nothing more is under way: the next
# upload is sent only when its own `begin` was seen.
_TAKE = f"""take() {{
  echo "$N begin send"
  {{ mkdir -p "${{2%/*}}" && head -c "$1" > "$2.part" && [ "$(wc -c < "$2.part")" -eq "$1" ] &&
    {{ [ "$3" = 600 ] || chmod "$3" "$2.part"; }} && mv "$2.part" "$2"; }} 2>&1 || {{ echo "$N failed send 1"; exit {EXIT_STEP_FAILED}; }}
  echo "$N done send"
}}
"""


def _take(receive: Receive) -> str:
    upload = receive.upload
    return f"take {receive.size_bytes} {q(upload.target)} {upload.mode:o}\n"


_ASK = f"""echo "$N ask"
[ "$(timeout {HEAR_S_MAX} head -n 1)" = "$N go" ] || {{ echo "$N unheard"; exit {EXIT_UNHEARD}; }}
"""
