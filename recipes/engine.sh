# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# What every service's script begins with. The renderer joins these files and drops the comments. There are no braces:
# nucleus lite takes each for a recipe variable. Every value comes by Setenv. `fail` ends a bracket, so `exit` follows it.
set -f
fail() ( echo "linewatch: $*" >&2; exit 1 )
d=$LW_DIRECTORY
case $d in /*) ;; *) fail "Directory must be an absolute path, not '$d'" || exit 1 ;; esac
# After a reboot nothing orders Docker before the nucleus, and three quick failures would end this component for good.
tries=50
until docker version >/dev/null 2>&1; do
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || fail "Docker does not answer: see 'systemctl status docker'" || exit 1
  sleep 2
done
set --
