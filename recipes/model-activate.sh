# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Says which version is to serve, and waits until inference has said anew what came of it. A refusal fails the deployment.
active=$LW_DIRECTORY/models/$LW_MODEL/active
outcome=$LW_DIRECTORY/state/inference/serving/$LW_MODEL
activate() ( echo "$1" >"$active.new" && chmod 0644 "$active.new" && mv "$active.new" "$active" )
before=$(cat "$active" 2>/dev/null)
rm -f "$outcome"
activate "$LW_VERSION" || exit 1
tries=100
while [ -n "$(docker ps -q -f "name=^$LW_INFERENCE\$" 2>/dev/null)" ]; do
  said=$(cat "$outcome" 2>/dev/null)
  case $said in "$LW_VERSION serving"*) break ;; "$LW_VERSION refused"*) tries=0 ;; esac
  if [ "$tries" -gt 0 ]; then
    tries=$((tries - 1))
    sleep 1
    continue
  fi
  # The version before goes on serving, also after inference's next start.
  [ -z "$before" ] || [ "$before" = "$LW_VERSION" ] || activate "$before"
  [ -n "$said" ] || said="no answer in time"
  echo "linewatch: inference does not serve $LW_MODEL $LW_VERSION: $said" >&2
  exit 1
done
# Nucleus lite appends lines of its own to this script, and one of them fails before systemd 253: it ends here.
[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready
exit 0
