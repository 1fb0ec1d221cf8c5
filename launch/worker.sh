#!/usr/bin/env bash
# The part of the launch scripts that runs on each worker; they call it, nobody by hand.
#
#   worker.sh setup PYTHON COMMIT      worker.sh start RUN ARGUMENTS...
#   worker.sh versions                 worker.sh status RUN
#   worker.sh stop RUN SECONDS         worker.sh logs RUN LINES FOLLOW
#
# Lines for the caller begin with "report HOST". A run is a folder ~/xlnet-jax-runs/RUN with its
# log, command, process and end. Every process of a run holds the lock on the folder's file
# "lock", so that liveness neither guesses from process numbers nor outlives a crash.

set -euo pipefail
HOST=$(hostname)
SELF=$(realpath "$0")
CODE=$HOME/xlnet-jax
ENVIRONMENT=$HOME/xlnet-jax-env
READY=$ENVIRONMENT/.ready
RUNS=$HOME/xlnet-jax-runs
UV=$HOME/.local/bin/uv

report() { echo "report $HOST $*"; }

refuse() {
  echo "$HOST: error: $*" >&2
  exit 1
}

is_alive() { [[ -e $RUNS/$1/lock ]] && ! flock --nonblock "$RUNS/$1/lock" true; }

setup() {
  local python=$1 commit=$2 run log=$HOME/xlnet-jax-setup.log
  for run in "$RUNS"/*; do
    if is_alive "$(basename "$run")"; then
      refuse "run '$(basename "$run")' is alive, wanted none: launch/stop.sh --run=$(basename "$run")"
    fi
  done
  rm -rf "$READY" "$CODE"
  mv "$(dirname "$(dirname "$SELF")")" "$CODE"
  cd "$CODE"
  # Without errexit in the condition of an if, each step says itself that the rest depends on it.
  if ! install "$python" >"$log" 2>&1; then
    tail -n 15 "$log" | sed "s/^/$HOST: /" >&2
    refuse "setup failed, see the lines above and $log"
  fi
  echo "$commit" >"$READY"
}

# The image has Python 3.10. uv brings the same build of a newer one to every host, as its pinned
# version knows it, with its checksum; it needs neither root nor apt, which is locked while a new
# machine updates itself.
install() {
  python3 -m pip install --user --quiet --require-hashes -r launch/requirements-uv.lock &&
    "$UV" python install "$1" &&
    "$UV" venv --clear --python-preference=only-managed --python "$1" "$ENVIRONMENT" &&
    "$UV" pip install --python "$ENVIRONMENT/bin/python" --require-hashes \
      -r requirements.lock -r launch/requirements-tpu.lock &&
    "$UV" pip install --python "$ENVIRONMENT/bin/python" --no-deps --no-build-isolation --editable .
}

versions() {
  [[ -e $READY ]] || refuse "not set up, wanted $ENVIRONMENT: run launch/setup.sh"
  report "$("$ENVIRONMENT/bin/python" - "$(<"$READY")" <<'PYTHON'
import importlib.metadata as metadata, platform, sys
names = ("xlnet-jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint")
print(f"commit {sys.argv[1]} python {platform.python_version()}",
      *(f"{name} {metadata.version(name)}" for name in names))
PYTHON
  )"
}

start() {
  local run=$1 folder=$RUNS/$1
  shift
  [[ -e $READY ]] || refuse "not set up, wanted $ENVIRONMENT: run launch/setup.sh"
  mkdir -p "$folder"
  exec 9>>"$folder/lock"
  flock --wait 5 9 || refuse "run '$run' is alive, wanted none of that name: launch/stop.sh --run=$run"
  rm -f "$folder"/{end,stop,process}
  printf '%q ' xlnet-jax "$@" >"$folder/command"
  cd "$CODE"
  # A session of its own survives the end of ssh. The lock passes to it as file 9.
  setsid "$ENVIRONMENT/bin/python" launch/supervise.py "$folder" "$ENVIRONMENT/bin/xlnet-jax" "$@" \
    >>"$folder/log" 2>&1 </dev/null &
  report started
}

status() {
  local folder=$RUNS/$1
  if is_alive "$1"; then
    report alive
  elif [[ -e $folder/end ]]; then
    report "$(cat "$folder/end")"
  elif [[ -e $folder/command ]]; then
    report lost
  else
    report absent
  fi
}

stop() {
  local folder=$RUNS/$1 deadline=$((SECONDS + $2)) child session
  if is_alive "$1"; then
    touch "$folder/stop"
    while is_alive "$1" && [[ ! -e $folder/process ]]; do sleep 0.1; done
    read -r child session <"$folder/process" || true
    kill -TERM "${child:-none}" 2>/dev/null || true
    wait_for_end "$1" "$deadline" || {
      kill -KILL -- "-${session:-none}" 2>/dev/null || true
      echo "stopped 137" >"$folder/end"
      wait_for_end "$1" $((SECONDS + 10)) || refuse "run '$1' lives on after SIGKILL to session $session"
    }
  fi
  status "$1"
}

wait_for_end() {
  while is_alive "$1"; do
    ((SECONDS < $2)) || return 1
    sleep 0.2
  done
}

logs() {
  local log=$RUNS/$1/log follow=()
  [[ -e $log ]] || refuse "no log of a run '$1', wanted one of: $(cd "$RUNS" 2>/dev/null && echo *)"
  if [[ $3 == true ]]; then follow=(--follow=name --retry); fi
  tail -n "$2" "${follow[@]}" "$log" | sed --unbuffered "s/^/$HOST: /"
}

"$@"
