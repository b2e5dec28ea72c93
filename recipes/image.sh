# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# The image is here unless somebody removed it; the network and the folders are made where they are missing.
until ask image inspect "$LW_IMAGE" >/dev/null 2>&1 || bounded "$(left)" docker pull "$LW_IMAGE"; do
  # Said at each try: whoever looks at the log meanwhile wants to know, too.
  echo "linewatch: no image $LW_IMAGE yet" >&2
  [ "$(left)" -gt 5 ] || fail "image $LW_IMAGE is neither here nor to be had: deploy again where the registry can be reached" || exit 1
  sleep 5 || exit 0
done
# Containers run as this user; what they write is theirs, and nobody's else but root's.
mkdir -p "$d/state/$LW_PART" "$d/secrets" || exit 1
chown 10001:10001 "$d/state/$LW_PART" "$d/secrets" && chmod 0700 "$d/state/$LW_PART" "$d/secrets" || exit 1
# Docker before 25 makes two networks of one name when asked twice at once, and then takes neither. So one asks at a time;
# without flock whoever comes by leaves the one with the smallest id. One that containers use is not removed.
network() (
  ! command -v flock || flock 9
  ask network inspect "$LW_NETWORK" && exit
  ask network create "$LW_NETWORK"
  command -v flock || sleep 2
  for id in $(ask network ls -q --no-trunc -f "name=^$(echo "$LW_NETWORK" | sed 's/[.]/\\./g')\$" | sort | tail -n +2); do
    ask network rm "$id"
  done
  ask network inspect "$LW_NETWORK"
)
network 9<"$d/state" >/dev/null 2>&1 ||
  fail "network $LW_NETWORK: none, or two: see 'docker network ls'" || exit 1
# Some kernels of Jetson modules can't limit the processor: Cpus may be empty.
[ -z "$LW_CPUS" ] || set -- "$@" --cpus "$LW_CPUS"
