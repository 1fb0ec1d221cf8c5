#!/usr/bin/env bash
# Deletes the slice and its request: nothing is rented any more. Local disks of the workers go
# with it; buckets stay.
#
#   launch/delete.sh          asks first
#   launch/delete.sh --yes

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SETTINGS+=([YES]=false)
begin "$@"

state=$(slice_state)
if ! $DRY_RUN; then
  if [[ $state == ABSENT ]]; then say "no queued resource $NAME in $ZONE: nothing to delete" && exit 0; fi
  if ! $YES; then
    read -r -p "Delete $NAME ($state) in $ZONE of project $PROJECT? [y/N] " answer || answer=''
    [[ $answer == [yY]* ]] || fail 2 "not deleted: answered '$answer', wanted y (or the flag --yes)"
  fi
fi
tpus queued-resources delete "$NAME" --force
