#!/usr/bin/env bash
# Sees a run through to its end: creates the slice, sets it up and starts the run where that has
# not been done, and does it again after each preemption. Run it in tmux on a machine that stays on.
#
#   launch/watch.sh --run=large --spot -- train --config=configs/pretrain.py:large \
#       --workdir=gs://BUCKET/runs/large --config.data.train=gs://BUCKET/shards
#
# The same command resumes the run from its newest checkpoint, so the workdir must be on gs://.
# Ends with 0 when the run finished or launch/stop.sh stopped it. Ends with 1, the hosts named and
# the slice left for a look, when xlnet-jax failed while the slice was up, and when the run was
# brought back MAX_RECREATIONS times. A run that is alive already is only watched.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

((${#COMMAND[@]})) || fail 2 "no command, wanted one behind --: launch/watch.sh -- train --config=..."

LONGEST_BACKOFF=1800
LONG_LIFE=3600

# do_script NAME ARGUMENTS...: another launch script with the same settings.
do_script() {
  local script=$1
  shift
  "$BASH" "$HERE/$script" ${PASSED[@]+"${PASSED[@]}"} "$@"
}

# One word for the slice and the run on all its workers.
verdict() {
  local slice node states silent
  if ! slice=$(slice_state) || ! node=$(node_state); then echo unknown && return; fi
  if [[ ${slice%% *} != ACTIVE || ${node%% *} != READY ]]; then echo gone && return; fi
  states=$(run_states) || true
  silent=$(silent_workers "${node##* }" "$states")
  if [[ $silent ]]; then
    echo "unreachable worker $silent"
  elif [[ $(hosts_in failed "$states") ]]; then
    echo "failed on $(hosts_in failed "$states")"
  elif [[ ! $(hosts_in 'lost|terminated|stopped|alive|finished' "$states") ]]; then
    echo absent
  elif [[ $(hosts_in 'lost|terminated|absent' "$states") ]]; then
    echo "interrupted on $(hosts_in 'lost|terminated|absent' "$states")"
  elif [[ $(hosts_in stopped "$states") ]]; then
    echo stopped
  elif [[ $(hosts_in alive "$states") ]]; then
    echo alive
  else
    echo finished
  fi
}

# The slice up and the run started, from whatever is there.
bring_up() {
  local state
  state=$(slice_state) || return
  case ${state%% *} in
    FAILED | SUSPENDING | SUSPENDED | DELETING) do_script delete.sh --yes || return ;;
    ACTIVE)
      state=$(node_state) || return
      # A preempted node can outlive its state for minutes.
      if [[ ${state%% *} != READY ]]; then do_script delete.sh --yes || return; fi
      ;;
  esac
  do_script create.sh && do_script setup.sh && do_script run.sh -- "${COMMAND[@]}"
}

# What the run is once it is no longer alive: a fault must last GRACE_SECONDS to be believed.
outcome() {
  local now since='' last=''
  while true; do
    now=$(verdict)
    if [[ $now != "$last" ]]; then say "run '$RUN': $now"; fi
    last=$now
    case $now in
      alive | unknown) since='' ;;
      finished | stopped | gone | absent) break ;;
      *)
        since=${since:-$SECONDS}
        if ((SECONDS - since >= GRACE_SECONDS)); then break; fi
        ;;
    esac
    sleep "$POLL_SECONDS"
  done
  echo "$now"
}

dry_run() {
  note "the slice, where it is not there yet:"
  do_script create.sh
  do_script setup.sh
  do_script run.sh -- "${COMMAND[@]}"
  note "then, every $POLL_SECONDS s:"
  slice_state >/dev/null
  node_state >/dev/null
  run_states
  note "after a failure, what is left of the run:"
  on_workers stop "$RUN" 60
  note "after a preemption, at most $MAX_RECREATIONS times (and at the end with DELETE_AT_END=true):"
  do_script delete.sh
  note "and again from the top"
}

if $DRY_RUN; then dry_run && exit 0; fi

recreations=0
delay=$BACKOFF_SECONDS
now=$(verdict)
if [[ $now != alive ]]; then bring_up || fail 1 "the run could not be started: the reason stands above"; fi
while true; do
  began=$SECONDS
  now=$(outcome)
  case $now in
    finished)
      say "run '$RUN' finished"
      if $DELETE_AT_END; then do_script delete.sh --yes && exit 0; fi
      say "the slice is still rented: launch/delete.sh" && exit 0
      ;;
    stopped) say "run '$RUN' was stopped; the slice is still rented: launch/delete.sh" && exit 0 ;;
    gone) ;;
    *) on_workers stop "$RUN" 60 || true ;;
  esac
  if [[ $now == failed* ]]; then
    on_workers logs "$RUN" 5 false || true
    fail 1 "run '$RUN' $now while the slice was up, which stays rented: launch/logs.sh --run=$RUN;" \
      "launch/watch.sh again after the remedy, or launch/delete.sh"
  fi
  if ((SECONDS - began >= LONG_LIFE)); then delay=$BACKOFF_SECONDS; fi
  until
    ((recreations < MAX_RECREATIONS)) || fail 1 "run '$RUN' is $now after $recreations recreations," \
      "wanted finished: watch again, or a larger MAX_RECREATIONS"
    recreations=$((recreations + 1))
    say "run '$RUN' is $now: recreation $recreations of at most $MAX_RECREATIONS in $delay s"
    sleep "$delay"
    delay=$((delay * 2 < LONGEST_BACKOFF ? delay * 2 : LONGEST_BACKOFF))
    bring_up
  do now='not up again'; done
done
