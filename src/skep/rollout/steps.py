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
from skep.rollout.transport import HEARD

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
    """An upload whose size is known: the script takes so many bytes from us when it says that it begins `send`."""

    upload: Upload
    size_bytes: int


def q(value: object) -> str:
    """Quote a value for sh."""
    return shlex.quote(str(value))


def render(
    steps: Sequence[RemoteStep],
    *,
    nonce: str,
    manifest_text: str,
    receives: Sequence[Receive] = (),
    serves: bool = True,
) -> str:
    """Return the script of all uploads and steps. It tells each one's begin and end with the nonce, and stops at a failure.

    `manifest_text` is the manifest as it was when the plan was made: a host that changed since is left alone. `serves`: there
    is a version to keep, so the host asks before it commits.
    """
    head = f"""N={q(nonce)}
cd "$HOME" || exit 70
umask 077
{_folders(receives)}exec 9>{layout.LOCK}
flock -w {LOCK_WAIT_S} 9 || {{ echo "$N busy"; exit {EXIT_BUSY}; }}
{READ_MANIFEST}[ "$m" = {q(manifest_text)} ] || {{ echo "$N changed"; exit {EXIT_CHANGED}; }}
run() {{
  echo "$N begin $1"
  ( set -eu; eval "$2" ) 2>&1 {HEARD}<&-
  s=$?
  [ $s = 0 ] || {{ echo "$N failed $1 $s"; exit {EXIT_STEP_FAILED}; }}
  echo "$N done $1"
}}
"""
    asked = not serves
    lines = [_TAKE] if receives else []
    lines += [_take(receive) for receive in receives]
    lines.append("begin_watch\n")
    for step in steps:
        if step.name in COMMITS and not asked:
            asked = True
            lines.append(_ASK)
        lines.append(f"run {q(step.name)} {q(step.script)}\n")
    return head + "".join(lines)


def _folders(receives: Sequence[Receive]) -> str:
    """Return sh that makes the folders that are missing, in one process."""
    wanted = [
        layout.SHARE,
        layout.BIN,
        *dict.fromkeys(receive.upload.target.rpartition("/")[0] for receive in receives),
    ]
    quoted = " ".join(q(folder) for folder in wanted)
    return f'for d in {quoted}; do [ -d "$d" ] || {{ mkdir -p {quoted}; break; }}; done\n'


# `head` of coreutils and of busybox takes no byte more than it was told to where nothing more is under way: the next
# upload is sent only when its own `begin` was seen. A file gets its name only when it is whole. The coreutils of many hosts sum
# by C alone, openssl by what the processor has for it: a fifth of the time; where it is missing or broken they have the word.
_TAKE = f"""is_sum() {{
  s=$(openssl dgst -sha256 -r < "$1" 2>/dev/null) && [ "${{s%% *}}" = "$2" ] && return
  s=$(sha256sum < "$1") && [ "${{s%% *}}" = "$2" ]
}}
take() {{
  echo "$N begin send"
  {{ head -c "$1" <&{HEARD} > "$2.part" &&
    if [ "$4" ]; then
      is_sum "$2.part" "$4" || {{ rm -f "$2.part"; echo "checksum wrong: it was damaged on its way"; false; }}
    else [ "$(wc -c < "$2.part")" -eq "$1" ]; fi &&
    {{ [ "$3" = 600 ] || chmod "$3" "$2.part"; }} && mv "$2.part" "$2"; }} 2>&1 || {{ echo "$N failed send 1"; exit {EXIT_STEP_FAILED}; }}
  echo "$N done send"
}}
"""


def _take(receive: Receive) -> str:
    upload = receive.upload
    return f"take {receive.size_bytes} {q(upload.target)} {upload.mode:o} {q(upload.sha256)}\n"


_ASK = f"""end_watch
echo "$N ask"
[ "$(timeout {HEAR_S_MAX} head -n 1 <&{HEARD})" = "$N go" ] || {{ echo "$N unheard"; exit {EXIT_UNHEARD}; }}
begin_watch
"""
