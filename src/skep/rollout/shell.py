"""Commands for a host's shell: a script that ends with its connection, and a probe that stays for the script after it.

sshd lets a command run on when its connection is gone, so a script is watched: while nothing is being said to it, a reader
waits for the end of stdin and then ends the script's whole session. Reader and script take turns on one descriptor, for
a copy in between costs a host more than the ciphers do.
"""

import shlex
from typing import Final

from skep.rollout.transport import HEARD

# `9>&-`: the reader must not hold a lock of the script's. `TMOUT`: bash's `read` would give up after so many seconds.
_WATCH: Final = f"""unset TMOUT
exec {HEARD}<&0 </dev/null
w=
begin_watch() {{
  ( trap '' TERM; while read -r l; do :; done; kill -TERM -$$; sleep 2; kill -KILL -$$ ) <&{HEARD} >/dev/null 2>&1 9>&- & w=$!
}}
end_watch() {{ [ -z "$w" ] || {{ kill -KILL $w || :; wait $w || :; }} 2>/dev/null; w=; }}
trap end_watch EXIT
"""
# OpenSSH makes each command the leader of a session. Where a server does not, `setsid` does.
_IN_A_SESSION: Final = (
    'if kill -0 -$$ 2>/dev/null; then eval "$1"; else exec 3<&0; setsid sh -c "$1" <&3 3<&- & wait $!; fi'
)

EXIT_CUT: Final = 71
_WHOLE: Final = "# whole"
"""The last line of a script that is said: one that was cut on its way is not begun."""


def watched(script: str, *, hears: bool) -> str:
    """Return the script with what ends it when its connection does.

    `hears`: our stdin is the script's, on descriptor `HEARD`; it reads there what it asks for, and calls `begin_watch` for the time
    in which nothing is said, and `end_watch` before it reads again.
    """
    return f"{_WATCH}{'' if hears else 'begin_watch'}\n{script}"


def command(text: str) -> str:
    """Return the command that runs a watched script."""
    return f"exec sh -c {shlex.quote(_IN_A_SESSION)} sh {shlex.quote(text)}"


def probing(script: str, mark: str) -> str:
    """Return the command that runs a script which only reads, says `mark` and its status on a line, and waits for one more.

    That one comes by stdin, after a line with its number of bytes: no second command, which would cost the host a process of
    sshd's and a login shell, and us two round trips; and nobody sees its text in the host's list of processes. At the end of
    stdin the shell ends.
    """
    text = f"""unset TMOUT
{{ eval "$1"; }} </dev/null
s=$?; echo; echo "{mark} $s"
read -r n || exit 0
set -- "$(head -c "$n")"
case $1 in *"{_WHOLE}") ;; *) exit {EXIT_CUT};; esac
{_IN_A_SESSION}"""
    return f"exec sh -c {shlex.quote(text)} sh {shlex.quote(script)}"


def following(text: str) -> bytes:
    """Return what is said to a shell that `probing` left waiting, so that it runs a watched script."""
    data = f"{text}\n{_WHOLE}".encode()
    return f"{len(data)}\n".encode() + data
