#!/usr/bin/env bash
# Brings this checkout's last commit, Python and the locked packages to all workers, and checks
# that all have the same versions.
#
#   launch/setup.sh
#   launch/setup.sh --python=3.12
#
# Copies the commit itself, so a private repository needs no key on the workers; what is not
# committed stays behind. Refuses while a run is alive there. Can be run again at any time.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin "$@"

ROOT=$(dirname "$HERE")
CONTENT=(xlnet_jax configs launch pyproject.toml README.md LICENSE requirements.lock)
UNPACK='rm -rf xlnet-jax-incoming && mkdir xlnet-jax-incoming && tar -xzf xlnet-jax.tar.gz -C xlnet-jax-incoming'

commit=$(git -C "$ROOT" rev-parse --short=12 HEAD 2>/dev/null) ||
  fail 2 "$ROOT is not a git checkout, wanted one: setup copies its last commit"
archive=${TMPDIR:-/tmp}/xlnet-jax-$commit.tar.gz

pack() {
  if [[ $(git -C "$ROOT" status --porcelain --untracked-files=no -- "${CONTENT[@]}") ]]; then
    say "changes that are not committed stay behind; the workers get commit $commit"
  fi
  git -C "$ROOT" archive --format=tar.gz "--output=$archive" HEAD -- "${CONTENT[@]}"
}

# check_versions NUMBER REPORTS: all workers answered, and with the same line.
check_versions() {
  local silent usual differing
  silent=$(silent_workers "$1" "$2")
  [[ -z $silent ]] || fail 1 "no versions from worker $silent (of $1), wanted all: run launch/setup.sh again"
  usual=$(cut -d' ' -f2- <<<"$2" | sort | uniq -c | sort -rn | awk 'NR == 1 { sub(/^ *[0-9]+ /, ""); print }')
  differing=$(awk -v usual="$usual" '{ host = $1; sub(/^[^ ]+ /, "") }
    $0 != usual { printf "%s%s has %s", gap, host, $0; gap = "; " }' <<<"$2")
  [[ -z $differing ]] || fail 1 "versions differ between hosts: $differing; wanted $usual:" \
    "run launch/setup.sh again"
  say "all $1 workers have $usual"
}

workers=$(count_workers)
$DRY_RUN || pack
# shellcheck disable=SC2046 # one flag or none
tpus tpu-vm scp "$archive" "$NAME:xlnet-jax.tar.gz" --worker=all $(internal_ip)
say "installing on all workers: a few minutes, in silence"
# shellcheck disable=SC2046
tpus tpu-vm ssh "$NAME" --worker=all \
  "--command=$UNPACK && bash xlnet-jax-incoming/launch/worker.sh setup $PYTHON $commit" $(internal_ip) ||
  fail 1 "setup failed on the workers named above; the reason stands there"
reports=$(on_workers versions | sed -n 's/^report //p')
$DRY_RUN || check_versions "$workers" "$reports"
