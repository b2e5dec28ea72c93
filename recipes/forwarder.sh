# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Without UplinkHost this device has no cloud yet: every event waits on its disk, and the status says so.
if [ -z "$FORWARDER_UPLINK_HOST" ]; then
  set -- "$@" -e FORWARDER_UPLINK=none
else
  # The forwarder's own certificate, not the nucleus's; its client id is its thing's name.
  for file in "$d/uplink" "$d/uplink/ca.pem" "$d/uplink/certificate.pem" "$d/uplink/key.pem"; do
    # A link would let whoever may write there have root give any file away, and leads nowhere in the container.
    [ ! -L "$file" ] || fail "$file: is a link; put the file itself there" || exit 1
    [ -s "$file" ] ||
      fail "$file: missing or empty; put ca.pem, certificate.pem and key.pem of the forwarder's own thing there" || exit 1
    chown -h 10001:10001 "$file" || exit 1
  done
  chmod 0500 "$d/uplink" || exit 1
  [ -n "$FORWARDER_UPLINK_CLIENT_ID" ] || export FORWARDER_UPLINK_CLIENT_ID="$AWS_IOT_THING_NAME-forwarder"
  set -- "$@" -v "$d/uplink:/run/uplink:ro" -e FORWARDER_UPLINK_CA_FILE=/run/uplink/ca.pem \
    -e FORWARDER_UPLINK_CERTIFICATE_FILE=/run/uplink/certificate.pem -e FORWARDER_UPLINK_KEY_FILE=/run/uplink/key.pem
fi
# Stream Manager listens on the host's loopback only: the host's network, where the broker is its published port.
if [ "$FORWARDER_STREAMS" = stream_manager ]; then
  LW_NETWORK=host
  shift 2
  set -- "$@" -e FORWARDER_MQTT_HOST=127.0.0.1 -e AWS_CONTAINER_AUTHORIZATION_TOKEN
fi
# Capture's pictures are only read; what is uploaded, and what open work orders hold, is noted beside them.
mkdir -p "$d/evidence" "$d/evidence-state" && chown 10001:10001 "$d/evidence-state" || exit 1
set -- "$@" -v "$d/evidence:/var/lib/linewatch/evidence:ro" -v "$d/evidence-state:/var/lib/linewatch/evidence-state" \
  -e FORWARDER_EVIDENCE_DIR=/var/lib/linewatch/evidence @SETTINGS@
