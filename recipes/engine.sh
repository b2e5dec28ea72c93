# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# What every service's script begins with. The renderer joins these files and drops the comments. There are no braces:
# nucleus lite takes each for a recipe variable. Every value comes by Setenv. `fail` ends a bracket, so `exit` follows it.
set -f
umask 022
# A shell acts on it when the command in hand has ended. The classic nucleus signals that command alone: `sleep || exit`.
trap 'exit 0' TERM INT
fail() ( echo "linewatch: $*" >&2; exit 1 )
# An engine whose containerd hangs takes calls and never answers.
bounded() ( exec timeout -s KILL "$@" )
ask() ( bounded 30 docker "$@" )
answers() ( bounded 10 docker version >/dev/null 2>&1 )
# Seconds of uptime: the clock is set after boot. One limit for all waits, below the step's 300 s, else nobody reads why.
now() ( cut -d . -f 1 /proc/uptime )
deadline=$(($(now) + 270))
left() ( s=$((deadline - $(now))); echo $((s > 1 ? s : 1)) )
d=$LW_DIRECTORY
case $d in /*) ;; *) fail "Directory must be an absolute path, not '$d'" || exit 1 ;; esac
# After a reboot nothing orders Docker before the nucleus, and three quick failures would end this component for good.
until answers; do
  [ "$(left)" -gt 1 ] || fail "Docker does not answer: see 'systemctl status docker'" || exit 1
  sleep 2 || exit 0
done
# The arguments of `docker run`; the first two are the name in the containers' network.
set -- --network-alias "$LW_PART"
