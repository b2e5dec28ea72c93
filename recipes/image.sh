# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# The image is here unless somebody removed it; the network and the folders are made where they are missing.
tries=20
until docker image inspect "$LW_IMAGE" >/dev/null 2>&1 || docker pull "$LW_IMAGE"; do
  # Said at each try: where name servers don't answer either, the step's timeout comes before the last one.
  echo "linewatch: no image $LW_IMAGE yet" >&2
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || fail "image $LW_IMAGE is neither here nor to be had: deploy again where the registry can be reached" || exit 1
  sleep 5
done
docker network inspect "$LW_NETWORK" >/dev/null 2>&1 || docker network create "$LW_NETWORK" >/dev/null 2>&1 ||
  docker network inspect "$LW_NETWORK" >/dev/null || exit 1
# Containers run as this user; what they write is theirs, and nobody's else but root's.
mkdir -p "$d/state/$LW_PART" "$d/secrets" || exit 1
chown 10001:10001 "$d/state/$LW_PART" "$d/secrets" && chmod 0700 "$d/state/$LW_PART" "$d/secrets" || exit 1
# Some kernels of Jetson modules can't limit the processor: Cpus may be empty.
[ -z "$LW_CPUS" ] || set -- "$@" --cpus "$LW_CPUS"
