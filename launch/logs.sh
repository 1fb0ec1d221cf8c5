#!/usr/bin/env bash
# Prints the ends of a run's logs, each line behind the name of its host.
#
#   launch/logs.sh --run=large                     the last 20 lines of every worker
#   launch/logs.sh --run=large --worker=0 --lines-each=1000
#   launch/logs.sh --run=large --worker=0 --follow until Ctrl-C
#
# Logs lie on the workers' own disks and go with the slice; what must last is in the workdir.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SETTINGS+=([WORKER]=all [LINES_EACH]=20 [FOLLOW]=false)
begin "$@"

[[ $WORKER =~ ^(all|[0-9]+([,-][0-9]+)*)$ ]] ||
  fail 2 "WORKER is '$WORKER', wanted all, a number, a list 0,3 or a range 0-3: set --worker="
on_worker "$WORKER" logs "$RUN" "$LINES_EACH" "$FOLLOW"
