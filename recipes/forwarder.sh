# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Without UplinkHost this device has no cloud yet: every event waits on its disk, and the status says so.
if [ -z "$FORWARDER_UPLINK_HOST" ]; then
  set -- "$@" -e FORWARDER_UPLINK=none
else
  # The forwarder's own certificate, not the nucleus's; its client id is its thing's name.
  [ -s "$d/uplink/key.pem" ] ||
    fail "$d/uplink: put ca.pem, certificate.pem and key.pem of the forwarder's own thing there" || exit 1
  set +f
  chown 10001:10001 "$d/uplink" "$d"/uplink/*.pem && chmod 0500 "$d/uplink" || exit 1
  set -f
  [ -n "$FORWARDER_UPLINK_CLIENT_ID" ] || export FORWARDER_UPLINK_CLIENT_ID="$AWS_IOT_THING_NAME-forwarder"
  set -- "$@" -v "$d/uplink:/run/uplink:ro" -e FORWARDER_UPLINK_CA_FILE=/run/uplink/ca.pem \
    -e FORWARDER_UPLINK_CERTIFICATE_FILE=/run/uplink/certificate.pem -e FORWARDER_UPLINK_KEY_FILE=/run/uplink/key.pem
fi
set -- "$@" @SETTINGS@
