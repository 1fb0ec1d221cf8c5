#!/usr/bin/env bash
# Shows the slice and the state of a run on each worker.
#
#   launch/status.sh --run=large
#
# States: alive; finished; failed CODE (the exit status of xlnet-jax); stopped (by stop.sh);
# terminated (by a signal, such as a preemption); lost (gone without a word, such as a restarted
# machine); absent (never started). Exit status 1 if a worker failed or gives no answer.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

state=$(slice_state)
tpus queued-resources describe "$NAME" '--format=yaml(name,state)'
if ! $DRY_RUN && [[ ${state%% *} != ACTIVE ]]; then
  fail 1 "queued resource $NAME in $ZONE is $state, wanted ACTIVE: run launch/create.sh"
fi
workers=$(count_workers)
states=$(run_states) || say "not every worker answers"
if $DRY_RUN; then exit 0; fi
printf '%s\n' "$states"
silent=$(silent_workers "$workers" "$states")
failed=$(hosts_in 'failed|lost' "$states")
[[ -z $silent ]] || fail 1 "no answer from worker $silent (of $workers)"
[[ -z $failed ]] || fail 1 "run '$RUN' failed on $failed: launch/logs.sh --run=$RUN"
