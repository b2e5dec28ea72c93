# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Runs the container in the foreground; arguments so far are this service's own.
own=io.linewatch.start=$$-$(cut -d ' ' -f 1 /proc/uptime)
# Beside it: tells nucleus lite's unit, of Type=notify, that the container is well; and when this script is gone, removes
# what a client that was ended while it started the container has left: this start's container, never the next start's.
# Not a child, and deaf to SIGTERM: it has to outlive this script on both nuclei, by seconds.
( ( trap '' TERM INT
  while kill -0 $$; do
    if [ -n "$NOTIFY_SOCKET" ] && [ -n "$(ask ps -q -f "label=$own" -f health=healthy)" ]; then
      systemd-notify --ready && NOTIFY_SOCKET=
    fi
    sleep 1
  done
  sleep 1
  for left in $(ask ps -aq -f "label=$own"); do ask rm -f "$left"; done ) & ) >/dev/null 2>&1
while :; do
  # What a killed client left behind would hold the name, and work on unseen.
  for _ in 1 2 3 4 5 6 7 8 9; do
    ask container inspect "$LW_NAME" >/dev/null 2>&1 || break
    bounded 30 docker rm -f "$LW_NAME" >/dev/null 2>&1 || sleep 2 || exit 0
  done
  since=$(now)
  # In the foreground, because a signal to the whole group reaches the container once: services take the second as "now".
  docker run --rm --init --name "$LW_NAME" --label "$own" --read-only --user 10001:10001 --cap-drop ALL \
    --security-opt no-new-privileges --pids-limit 128 --memory "$LW_MEMORY" --memory-swap "$LW_MEMORY" \
    --tmpfs /tmp:mode=1777,size=16m --stop-timeout 12 --log-driver local --log-opt max-size=10m --log-opt max-file=3 \
    --network "$LW_NETWORK" "$@" "$LW_IMAGE"
  code=$?
  # The engine's end is no failure of this component, and three within an hour would break it. 125 is Docker's own code:
  # of a container that ran, the engine was lost, though by now it may be back.
  [ "$code" -eq 125 ] && [ $(($(now) - since)) -ge 10 ] || ! answers || break
  echo "linewatch: Docker went away; $LW_NAME runs again when it answers" >&2
  until answers; do sleep 2 || exit 0; done
done
# A service never ends by itself, so even 0 is a failure that the nucleus has to see.
echo "linewatch: container $LW_NAME ended with $code" >&2
[ "$code" -ne 0 ] || code=1
exit "$code"
