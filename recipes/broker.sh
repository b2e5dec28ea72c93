# shellcheck shell=dash disable=SC2154,SC2046,SC2086
# SPDX-License-Identifier: Apache-2.0
# Passwords of the clients, made once and kept; then the broker's own arguments.
bounded 30 docker rm -f "$LW_NAME-secrets" >/dev/null 2>&1 || true
bounded "$(left)" docker run --rm --name "$LW_NAME-secrets" --network none --read-only --user 10001:10001 --cap-drop ALL \
  --security-opt no-new-privileges --memory 32m --pids-limit 32 --tmpfs /tmp:mode=1777,size=1m \
  --tmpfs /mosquitto/data --tmpfs /mosquitto/log -v "$d/secrets:/secrets" \
  "$LW_IMAGE" make-secrets $(echo "$LW_CLIENTS" | tr ', ' '  ') || exit 1
set -- "$@" --tmpfs /mosquitto/log -v "$d/state/broker:/mosquitto/data" -v "$d/secrets/broker:/run/linewatch:ro"
# For what is on the host's network, such as a forwarder that uses Stream Manager; of this device only.
[ -z "$LW_LOOPBACK" ] || set -- "$@" -p "127.0.0.1:$LW_LOOPBACK:1883"
