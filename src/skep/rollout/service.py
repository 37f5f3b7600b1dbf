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

# `9>&-`: the service must not inherit the sync's lock. A hive that ends by itself is started again, with a pause.
START_SUPERVISED: Final = f"""{STOP}
setsid sh -c '{SHELL_FUNCTIONS.replace("'", chr(39) + chr(92) + chr(39) + chr(39))}
echo "$$ $(born $$)" > {layout.SERVICE_PID}.new
mv {layout.SERVICE_PID}.new {layout.SERVICE_PID}
trap "kill \\$c 2>/dev/null; wait \\$c; rm -f {layout.SERVICE_PID}; exit 0" TERM INT
while :; do
  {layout.BIN}/skep hive --config "$HOME"/{layout.HIVE_CONFIG} </dev/null & c=$!
  wait $c
  sleep 2 & wait $!
done' >>{layout.SERVICE_LOG} 2>&1 </dev/null 9>&- &
i=0
until supervised || [ $i -ge 100 ]; do sleep 0.05; i=$((i+1)); done
supervised
"""
