# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by .ci/run and tests/long: runs parts one after the other; at the end says how each went and what it took.
export CI=true
exec </dev/null
failed=
summary=

processor_seconds() {  # of all that this shell has waited for
  awk -v ticks="$(getconf CLK_TCK)" '{ print int(($16 + $17) / ticks) }' /proc/$$/stat
}

part() {  # part NAME COMMAND...; exit code 77: something that it needs is not there
  local name=$1 started=$SECONDS worked code=0
  worked=$(processor_seconds)
  shift
  echo "=== $name: $*"
  "$@" || code=$?
  [ $code -eq 0 ] || [ $code -eq 77 ] || failed+=" $name"
  summary+=$(printf '%-12s %5d s, of processors %5d s  %s' "$name" $((SECONDS - started)) $(($(processor_seconds) - worked)) \
    "$(case $code in 0) echo passed ;; 77) echo skipped ;; *) echo "FAILED, exit $code" ;; esac)")$'\n'
}

finish() {  # exit code 1 where a part failed
  echo "=== how long it took"
  printf '%s' "$summary"
  [ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
}
