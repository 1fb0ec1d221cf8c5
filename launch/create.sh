#!/usr/bin/env bash
# Requests a TPU slice as a queued resource and waits until it is ACTIVE.
#
#   launch/create.sh                         as launch/settings.env says
#   launch/create.sh --accelerator=v3-128 --spot --wait-minutes=1440
#
# A request that waits already is waited for again; one that is ACTIVE is left alone. After
# WAIT_MINUTES the request lapses by itself, so that nothing is rented later unseen.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

request_slice() {
  local more=()
  if $SPOT; then more+=(--spot); fi
  if $INTERNAL_IPS; then more+=(--internal-ips); fi
  if [[ $NETWORK ]]; then more+=("--network=$NETWORK"); fi
  if [[ $SUBNETWORK ]]; then more+=("--subnetwork=$SUBNETWORK"); fi
  if [[ $SERVICE_ACCOUNT ]]; then more+=("--service-account=$SERVICE_ACCOUNT"); fi
  tpus queued-resources create "$NAME" "--node-id=$NAME" "--accelerator-type=$ACCELERATOR" \
    "--runtime-version=$RUNTIME" \
    "--valid-until-duration=${WAIT_MINUTES}m" ${more[@]+"${more[@]}"}
}

wait_until_active() {
  local now last='' deadline=$((SECONDS + WAIT_MINUTES * 60))
  note "then, every $POLL_SECONDS s until ACTIVE, for $WAIT_MINUTES minutes at most:"
  while true; do
    now=$(slice_state) || now=unknown
    if $DRY_RUN; then return; fi
    now=${now%% *}
    if [[ $now != "$last" ]]; then say "$NAME ($ACCELERATOR in $ZONE) is $now"; fi
    last=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        fail 1 "queued resource $NAME became $now, wanted ACTIVE: launch/status.sh shows why;" \
          "launch/delete.sh, then again, with another --zone or a larger --wait-minutes"
        ;;
    esac
    ((SECONDS < deadline)) || fail 1 "queued resource $NAME is $now after $WAIT_MINUTES minutes," \
      "wanted ACTIVE: again to go on waiting, launch/delete.sh to give up, or a larger WAIT_MINUTES"
    sleep "$POLL_SECONDS"
  done
}

found=$(slice_state)
read -r state type <<<"$found" || true
if [[ $type && $type != "$ACCELERATOR" ]]; then
  fail 2 "queued resource $NAME is a $type, wanted $ACCELERATOR: launch/delete.sh, or another NAME" \
    "or ACCELERATOR"
fi
case $state in
  ABSENT) request_slice ;;
  FAILED | SUSPENDING | SUSPENDED | DELETING)
    fail 1 "queued resource $NAME is $state, wanted none or a waiting one: launch/delete.sh, then again"
    ;;
esac
wait_until_active
