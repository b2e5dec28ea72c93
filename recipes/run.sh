# shellcheck shell=dash disable=SC2154,SC2155
# SPDX-License-Identifier: Apache-2.0
# Runs the container in the foreground; arguments so far are this service's own.
# What a killed client left behind would hold the name, and work on unseen.
tries=30
while docker container inspect "$LW_NAME" >/dev/null 2>&1 && [ "$tries" -gt 0 ]; do
  tries=$((tries - 1))
  docker rm -f "$LW_NAME" >/dev/null 2>&1 || sleep 1
done
# Nucleus lite starts this as a systemd unit of Type=notify. It ends with this script, or after five minutes.
( tries=300
  while [ -n "$NOTIFY_SOCKET" ] && [ "$tries" -gt 0 ] && kill -0 $$ 2>/dev/null; do
    tries=$((tries - 1))
    [ -z "$(docker ps -q -f "name=^$LW_NAME\$" -f health=healthy)" ] || exec systemd-notify --ready
    sleep 1
  done ) &
# In the foreground, because a signal to the whole group reaches the container once: services take the second as "now".
stopping=
trap 'stopping=1' TERM INT
docker run --rm --init --name "$LW_NAME" --read-only --user 10001:10001 --cap-drop ALL --security-opt no-new-privileges \
  --pids-limit 128 --memory "$LW_MEMORY" --memory-swap "$LW_MEMORY" --tmpfs /tmp:mode=1777,size=16m --stop-timeout 12 \
  --log-driver local --log-opt max-size=10m --log-opt max-file=3 --network "$LW_NETWORK" --network-alias "$LW_PART" \
  "$@" "$LW_IMAGE"
code=$?
[ -z "$stopping" ] || exit 0
# A service never ends by itself, so even 0 is a failure that the nucleus has to see.
echo "linewatch: container $LW_NAME ended with $code" >&2
[ "$code" -ne 0 ] || code=1
exit "$code"
