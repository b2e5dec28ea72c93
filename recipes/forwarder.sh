# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Any further setting, NAME=value without the prefix, separated by commas.
IFS=,
for s in $LW_SETTINGS; do set -- "$@" -e "FORWARDER_$s"; done
unset IFS
n=$FORWARDER_CREDENTIALS_HOST
case ,$LW_SETTINGS, in
  *,UPLINK=greengrass_ipc,*) ;;
  *)
    # Without UplinkHost this device has no cloud yet: every event waits on its disk, and the status says so.
    [ -n "$FORWARDER_UPLINK_HOST" ] || set -- "$@" -e FORWARDER_UPLINK=none
    n=$n$FORWARDER_UPLINK_HOST
    ;;
esac
if [ -n "$n" ]; then
  # The forwarder's own certificate, not the nucleus's; its client id is its thing's name.
  for f in "$d/uplink" "$d/uplink/ca.pem" "$d/uplink/certificate.pem" "$d/uplink/key.pem"; do
    # A link would let whoever may write there have root give any file away, and leads nowhere in the container.
    [ ! -L "$f" ] || fail "$f: is a link; put the file itself there" || exit 1
    [ -s "$f" ] ||
      fail "$f: missing or empty; put ca.pem, certificate.pem and key.pem of the forwarder's thing there" || exit 1
    chown -h 10001:10001 "$f" || exit 1
  done
  chmod 0500 "$d/uplink" || exit 1
  [ -n "$FORWARDER_UPLINK_CLIENT_ID" ] || export FORWARDER_UPLINK_CLIENT_ID="$AWS_IOT_THING_NAME-forwarder"
  # The image knows their names.
  set -- "$@" -v "$d/uplink:/run/uplink:ro"
fi
# Stream Manager listens on the host's loopback only: the host's network, where the broker is its published port.
if [ "$FORWARDER_STREAMS" = stream_manager ]; then
  LW_NETWORK=host
  shift 2
  set -- "$@" -e FORWARDER_MQTT_HOST=127.0.0.1 -e AWS_CONTAINER_AUTHORIZATION_TOKEN
fi
# Capture's pictures are only read; what is uploaded, and what open work orders hold, is noted beside them. The image
# knows the places. By the thing's name it knows the nucleus's own client id, which it must not take.
e=$d/evidence
mkdir -p "$e" "$e-state" && chown 10001:10001 "$e-state" || exit 1
i=/var/lib/linewatch/evidence
set -- "$@" -v "$e:$i:ro" -v "$e-state:$i-state" -e AWS_IOT_THING_NAME -e FORWARDER_AWS_REGION="$AWS_REGION" @SETTINGS@
