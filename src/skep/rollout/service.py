"""The hive as a service on a host: systemd's user manager where there is one, else a small supervisor in sh.

A pid alone says nothing, for pids are used again: the pid file holds the process's start time too. One that was killed and
that nobody has reaped yet still has both, and serves nothing.
"""

from typing import Final

from skep.rollout import layout

SHELL_FUNCTIONS: Final = f"""born() {{
  b=
  if [ -r "/proc/$1/stat" ]; then
    read -r b < "/proc/$1/stat" 2>/dev/null
    set -- ${{b##*) }}
    case ${{1-}} in Z|X) return;; esac
    [ $# -lt 20 ] || {{ shift 19; echo "$1"; }}
  else ps -o lstart= -p "$1" 2>/dev/null | tr ' ' _; fi
}}
supervised() {{
  p= t=
  [ -s {layout.SERVICE_PID} ] && read -r p t < {layout.SERVICE_PID} && [ -n "$t" ] && [ "$(born "$p")" = "$t" ]
}}
"""

# A login without PAM has no such variable, and systemctl needs it.
_SYSTEMD: Final = 'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"'

IS_SERVING: Final = f"""{SHELL_FUNCTIONS}
s=stopped
if [ -e {layout.UNIT} ] && {_SYSTEMD} && systemctl --user is-active --quiet skep-hive 2>/dev/null; then s=running; fi
if supervised; then s=running; fi
"""

STOP: Final = f"""{SHELL_FUNCTIONS}
if [ -e {layout.UNIT} ]; then {_SYSTEMD}; systemctl --user disable -q --now skep-hive 2>/dev/null || true; fi
if supervised; then
  kill -TERM "$p" 2>/dev/null || true
  i=0
  while supervised && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done
  if supervised; then kill -KILL "-$p" 2>/dev/null || true; fi
fi
rm -f {layout.SERVICE_PID} {layout.DRAINED}.new
"""

# After the gate: the one that answers must be the one that was started, and not another program on the port.
STILL_OURS: Final = f"""{IS_SERVING}
[ "$s" = running ] || {{ echo "something answers, but the hive that was started does not run"; tail -n 20 {layout.SERVICE_LOG} 2>/dev/null; exit 1; }}
"""

START_BY_SYSTEMD: Final = f"""{STOP}
{_SYSTEMD}
{layout.BIN}/skep hive install --config "$HOME"/{layout.HIVE_CONFIG} </dev/null
systemctl --user daemon-reload
systemctl --user enable -q skep-hive
systemctl --user restart skep-hive
loginctl enable-linger "$(id -un)" 2>/dev/null || echo "lingering is off: the hive ends with the last login"
"""

LOG_BYTES_MAX: Final = 8 << 20
LOGS_KEPT: Final = 3
LOOK_S: Final = 10

# As logrotate's copytruncate: the hive has the file open to append to, and goes on at its new beginning. Where the disk
# is too full for a copy the file is emptied all the same.
_ROTATED: Final = f"""rotated() {{
  [ "$(wc -c < {layout.SERVICE_LOG})" -gt "$1" ] || return 0
  n={LOGS_KEPT}
  while [ $n -gt 1 ]; do
    m=$((n-1)); [ ! -e {layout.SERVICE_LOG}.$m ] || mv {layout.SERVICE_LOG}.$m {layout.SERVICE_LOG}.$n; n=$m
  done
  cp {layout.SERVICE_LOG} {layout.SERVICE_LOG}.new && mv {layout.SERVICE_LOG}.new {layout.SERVICE_LOG}.1 || rm -f {layout.SERVICE_LOG}.new
  : > {layout.SERVICE_LOG}
}}
"""

LOGS: Final = " ".join(
    [layout.SERVICE_LOG, *(f"{layout.SERVICE_LOG}.{end}" for end in ("new", *range(1, LOGS_KEPT + 1)))]
)


def start_supervised(*, log_bytes_max: int = LOG_BYTES_MAX, look_s: float = LOOK_S) -> str:
    """Return sh that starts the hive under our own supervisor, which starts it again, with a pause, when it ends.

    Its log is looked at every `look_s`; of one that is longer than `log_bytes_max` the last `LOGS_KEPT` are kept.
    """
    functions = f"{SHELL_FUNCTIONS}{_ROTATED}".replace("'", "'\\''")
    # `9>&-`: the service must not inherit the sync's lock.
    return f"""{STOP}
setsid sh -c '{functions}
echo "$$ $(born $$)" > {layout.SERVICE_PID}.new
mv {layout.SERVICE_PID}.new {layout.SERVICE_PID}
( trap "kill \\$z; exit 0" TERM; while supervised; do rotated {log_bytes_max}; sleep {look_s:g} & z=$!; wait $z; done ) & r=$!
trap "kill \\$c \\$r 2>/dev/null; wait \\$c \\$r; rm -f {layout.SERVICE_PID}; exit 0" TERM INT
while :; do
  {layout.BIN}/skep hive --config "$HOME"/{layout.HIVE_CONFIG} </dev/null & c=$!
  wait $c
  sleep 2 & wait $!
done' >>{layout.SERVICE_LOG} 2>&1 </dev/null 9>&- &
i=0
until supervised || [ $i -ge 100 ]; do sleep 0.05; i=$((i+1)); done
supervised
"""
