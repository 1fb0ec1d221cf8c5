# shellcheck shell=bash
# What the launch scripts share: settings and flags, --dry-run, --help, and the way to gcloud.
#
# A script sources this file and calls `begin "$@"`. Exit statuses: 0 done, 1 the job failed,
# 2 wrong input or setting.

set -euo pipefail
SCRIPT="launch/$(basename "$0")"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# fail STATUS MESSAGE...: one line on standard error, and the end of the script.
fail() {
  local status=$1
  shift
  printf '%s: error: %s\n' "$SCRIPT" "$*" >&2
  exit "$status"
}

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  fail 2 "bash is $BASH_VERSION, wanted 4.4 or newer: run the script with a newer bash"
shopt -s inherit_errexit

# Every key that a settings file or a flag may set, with its default.
declare -A SETTINGS=(
  [PROJECT]='' [ZONE]='' [NAME]='' [ACCELERATOR]='' [SPOT]=false [RUNTIME]=tpu-ubuntu2204-base
  [SERVICE_ACCOUNT]='' [NETWORK]='' [SUBNETWORK]='' [INTERNAL_IPS]=false [PYTHON]=3.11 [RUN]=train
  [WAIT_MINUTES]=360 [POLL_SECONDS]=60 [STOP_SECONDS]=600 [GRACE_SECONDS]=180
  [MAX_RECREATIONS]=100 [BACKOFF_SECONDS]=60 [DELETE_AT_END]=false
)
declare -A ORIGIN=() # where a key got its value, for messages
DRY_RUN=false
COMMAND=() # what stands behind --
PASSED=()  # what stands before it, for scripts that call others

# begin ARGUMENTS...: reads flags and settings and checks them. A script may add keys of its own
# to SETTINGS first.
begin() {
  local file=$HERE/settings.env flags=() argument
  while (($#)); do
    argument=$1
    shift
    case $argument in
      --help | -h) help && exit 0 ;;
      --)
        # shellcheck disable=SC2034 # scripts read it
        COMMAND=("$@")
        break
        ;;
      --dry-run) DRY_RUN=true ;;
      --settings=*)
        file=${argument#*=}
        [[ -e $file ]] || fail 2 "--settings is '$file', which is not there, wanted a file"
        ;;
      --*) flags+=("$argument") ;;
      *) fail 2 "received '$argument', wanted --FLAG=VALUE (see $SCRIPT --help)" ;;
    esac
    PASSED+=("$argument")
  done
  if [[ -e $file ]]; then read_settings "$file"; fi
  for argument in ${flags[@]+"${flags[@]}"}; do read_flag "$argument"; done
  check_settings "$file"
  $DRY_RUN || command -v gcloud >/dev/null ||
    fail 2 "gcloud is not on PATH, wanted the Google Cloud CLI: see cloud.google.com/sdk/docs/install"
  exec 3>&1 # so that --dry-run shows also those commands whose output is read
}

# The comment at the head of the script, then the keys.
help() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
  printf '\nFlags of all scripts: --help, --dry-run (prints the gcloud commands, runs none),\n'
  printf -- '--settings=FILE (default launch/settings.env; every key is told in settings.env.example)\n'
  printf 'and any key as a flag:\n'
  local key
  for key in "${!SETTINGS[@]}"; do printf '  --%s=%s\n' "$(flag_of "$key")" "${SETTINGS[$key]}"; done | sort
}

flag_of() { tr 'A-Z_' 'a-z-' <<<"$1"; }

# read_settings FILE: KEY=VALUE lines, never run as shell.
read_settings() {
  local file=$1 line number=0
  while IFS= read -r line || [[ $line ]]; do
    number=$((number + 1))
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    [[ $line =~ ^[[:space:]]*([A-Z_]+)=(.*[^[:space:]])?[[:space:]]*$ ]] ||
      fail 2 "$file line $number is '$line', wanted KEY=VALUE"
    take "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "$file line $number"
  done <"$file"
}

# read_flag --KEY=VALUE: or --KEY for KEY=true.
read_flag() {
  local key=${1#--} value=true
  if [[ $key == *=* ]]; then value=${key#*=} && key=${key%%=*}; fi
  key=${key^^}
  take "${key//-/_}" "$value" "$1"
}

# take KEY VALUE ORIGIN: quotes around a value are its clothing, as in a shell.
take() {
  local key=$1 value=$2
  [[ $key =~ ^[A-Z_]+$ && -v SETTINGS[$key] ]] ||
    fail 2 "$3 sets '$key', wanted one of: $(printf '%s\n' "${!SETTINGS[@]}" | sort | tr '\n' ' ')"
  if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
  SETTINGS[$key]=$value
  ORIGIN[$key]=$3
}

# check_settings FILE: makes a variable of each key; ends with key, value and wish of a wrong one.
check_settings() {
  local key value wanted
  for key in "${!SETTINGS[@]}"; do
    value=${SETTINGS[$key]}
    wanted=''
    case $key in
      PROJECT | ZONE | ACCELERATOR) [[ $value =~ ^[a-z0-9.:-]+$ ]] || wanted=$(example_of "$key") ;;
      NAME | RUN) [[ $value =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || wanted='letters a-z, digits and -' ;;
      SPOT | INTERNAL_IPS | DELETE_AT_END | YES | FOLLOW) [[ $value =~ ^(true|false)$ ]] || wanted='true or false' ;;
      PYTHON) [[ $value =~ ^3\.1[123](\.[0-9]+)?$ ]] || wanted='3.11, 3.12 or 3.13' ;;
      POLL_SECONDS) [[ $value =~ ^[0-9]+(\.[0-9]+)?$ ]] || wanted='a number of seconds' ;;
      *_SECONDS | *_MINUTES | MAX_* | LINES_*) [[ $value =~ ^[0-9]+$ ]] || wanted='a whole number' ;;
    esac
    [[ -z $wanted ]] || fail 2 "$key is '$value', wanted $wanted: set $key in ${ORIGIN[$key]:-$1}" \
      "or --$(flag_of "$key")="
    printf -v "$key" '%s' "$value"
  done
}

example_of() {
  case $1 in
    PROJECT) echo 'the id of a Google Cloud project (gcloud config get-value project shows yours)' ;;
    ZONE) echo 'a zone such as europe-west4-a' ;;
    ACCELERATOR) echo 'a type such as v3-8 or v3-128' ;;
  esac
}

# quoted WORDS...: one line that any bash reads back as the same words.
quoted() {
  local word line=''
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  printf '%s\n' "${line# }"
}

note() { if $DRY_RUN; then printf '# %s\n' "$*" >&3; fi; }

# run_command WORDS...: runs them, or only shows them.
run_command() {
  if $DRY_RUN; then quoted "$@" >&3; else "$@"; fi
}

# tpus GROUP VERB ARGUMENTS...: a command of `gcloud compute tpus` that asks no questions.
tpus() { run_command gcloud compute tpus "$@" "--project=$PROJECT" "--zone=$ZONE" --quiet; }

# "STATE TYPE" of the queued resource, "ABSENT" if there is none. A filtered list, since describe
# tells a missing resource from a failed request only in the words of its message.
slice_state() {
  local found
  found=$(tpus queued-resources list "--filter=name~/$NAME\$" \
    '--format=value(state.state,tpu.nodeSpec[0].node.acceleratorType.basename())') || return
  tr '\t' ' ' <<<"${found:-ABSENT}"
}

# "STATE WORKERS" of the node, nothing if there is none.
node_state() {
  local found
  found=$(tpus tpu-vm list "--filter=name~/$NAME\$" '--format=value(state,networkEndpoints.len())') || return
  tr '\t' ' ' <<<"$found"
}

# Number of workers of the slice; an error if it is not up.
count_workers() {
  local found
  found=$(node_state)
  if $DRY_RUN; then echo 0 && return; fi
  [[ ${found%% *} == READY && ${found##* } =~ ^[1-9][0-9]*$ ]] ||
    fail 1 "node $NAME in $ZONE is '${found:-absent}', wanted READY: run launch/create.sh"
  echo "${found##* }"
}

internal_ip() { if $INTERNAL_IPS; then echo --internal-ip; fi; }

# on_workers WORDS...: runs worker.sh with these words on all workers at once. gcloud's
# --output-directory is not used: it drops the folder's name in the release of June 2025.
on_workers() { on_worker all "$@"; }

# on_worker WORKERS WORDS...
on_worker() {
  local workers=$1
  shift
  # shellcheck disable=SC2046 # one flag or none
  tpus tpu-vm ssh "$NAME" "--worker=$workers" \
    "--command=$(quoted bash xlnet-jax/launch/worker.sh "$@")" $(internal_ip)
}

# Lines "HOST STATE CODE" of the run on every worker; fails if gcloud does.
run_states() { on_workers status "$RUN" | sed -n 's/^report //p' | sort -V; }

# silent_workers NUMBER REPORTS: numbers of those workers, of NUMBER, that have no line in REPORTS.
# Host names of TPU VMs end in the number of the worker.
silent_workers() {
  local number
  for ((number = 0; number < $1; number++)); do
    grep -qE "^[^ ]+-$number( |\$)" <<<"$2" || echo "$number"
  done | tr '\n' ' ' | sed 's/ $//'
}

# hosts_in STATES REPORTS: "HOST (STATE CODE), ..." of those in one of the states (a|b).
hosts_in() { awk -v states="^($1)\$" '$2 ~ states { printf "%s%s (%s)", gap, $1, $2 ($3 == "" ? "" : " " $3); gap = ", " }' <<<"$2"; }
