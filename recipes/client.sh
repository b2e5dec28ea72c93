# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# What a service needs that signs in at the broker and speaks to the nucleus.
case $LW_USER in '' | *[!a-z0-9_-]*) fail "Line: '$LW_USER' must be lower-case letters, digits, _ and -" || exit 1 ;; esac
until [ -s "$d/secrets/$LW_USER/mqtt-password" ]; do
  [ "$(left)" -gt 5 ] || fail "no password for $LW_USER: name it in Clients of io.linewatch.Broker and deploy that" || exit 1
  sleep 5 || exit 0
done
# Thing names may hold what a name in topics may not.
[ -n "$LW_DEVICE" ] || LW_DEVICE=$(printf %s "$AWS_IOT_THING_NAME" | tr "[:upper:]" "[:lower:]" | tr -c a-z0-9_- - | cut -c 1-64)
set -- "$@" -v "$d/secrets/$LW_USER:/run/linewatch:ro" -v "$d/state/$LW_PART:/var/lib/linewatch/state" \
  -e "$LW_PREFIX"MQTT_HOST=broker -e "$LW_PREFIX"MQTT_USERNAME="$LW_USER" \
  -e "$LW_PREFIX"MQTT_PASSWORD_FILE=/run/linewatch/mqtt-password -e "$LW_PREFIX"DEVICE="$LW_DEVICE"
# The nucleus's socket, wherever this nucleus keeps it.
socket=$AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT
[ ! -S "$socket" ] ||
  set -- "$@" -v "$socket:$socket" -e SVCUID -e AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT
