#!/usr/bin/env bash
# Stops a run on all workers: SIGTERM, on which train saves a checkpoint; after STOP_SECONDS
# SIGKILL to what is left. The slice stays, and costs, until launch/delete.sh.
#
#   launch/stop.sh --run=large

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

on_workers stop "$RUN" "$STOP_SECONDS" || fail 1 "not all workers stopped run '$RUN': they are named above"
