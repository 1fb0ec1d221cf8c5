#!/usr/bin/env bash
# Starts xlnet-jax on all workers, in the background, with a log on each.
#
#   launch/run.sh -- train --config=configs/pretrain.py:large --workdir=gs://BUCKET/runs/large \
#       --config.data.train=gs://BUCKET/shards
#   launch/run.sh --run=eval -- evaluate --workdir=gs://BUCKET/runs/large
#
# What stands behind -- arrives as it is, blanks and quotes included. Relative paths are those of
# the checkout. Refuses while a run of the same name is alive on any worker.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

((${#COMMAND[@]})) || fail 2 "no command, wanted one behind --: launch/run.sh -- train --config=..."

workers=$(count_workers)
states=$(run_states) || fail 1 "not every worker answers: run launch/setup.sh first"
alive=$(hosts_in alive "$states")
[[ -z $alive ]] || fail 1 "run '$RUN' is alive on $alive, wanted none of that name:" \
  "launch/stop.sh --run=$RUN, or another --run="
on_workers start "$RUN" "${COMMAND[@]}" ||
  fail 1 "run '$RUN' did not start on the workers named above; launch/stop.sh --run=$RUN stops the rest"
$DRY_RUN || say "run '$RUN' started on $workers workers; launch/logs.sh --run=$RUN, launch/status.sh --run=$RUN"
