# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Says which version is to serve, and waits until inference has said what came of it. A refusal fails the deployment.
folder=$LW_DIRECTORY/models/$LW_MODEL
state=$LW_DIRECTORY/state/inference
told=$state/serving/$LW_MODEL
token=$(cat /proc/sys/kernel/random/uuid)
put() ( printf '%s\n' "$2" >"$1.new" && chmod 0644 "$1.new" && mv "$1.new" "$1" )
# Inference's user writes there: only a plain file is read, little of it, and only the answer to this very question is told.
odd() ( [ -L "$state" ] || [ -L "$state/serving" ] || [ -L "$told" ] || if [ -e "$told" ]; then [ ! -f "$told" ]; else false; fi )
answer() (
  [ -f "$told" ] || exit 0
  lines=$(head -c 1100 "$told" | tr -d '\000-\011\013-\037\177')
  [ "$(printf '%s\n' "$lines" | sed -n 2p)" = "$token" ] || exit 0
  line=$(printf '%s\n' "$lines" | head -n 1)
  case $line in "$LW_VERSION serving "* | "$LW_VERSION refused "* | "$LW_VERSION set-aside "*) printf '%s\n' "$line" ;; esac
)
before=$(head -n 1 "$folder/active" 2>/dev/null)
# Kept on the disk until another one has been before.
[ -z "$before" ] || [ "$before" = "$LW_VERSION" ] || put "$folder/.before" "$before" || exit 1
tries=150
put "$folder/active" "$LW_VERSION
$token" || [ "$before" = "$LW_VERSION" ] || exit 1
said='' seen='' absent=''
while [ "$tries" -gt 0 ] && ! odd; do
  said=$(answer)
  [ -z "$said" ] || break
  # On a new device inference's component may be a moment behind.
  [ -d "$state" ] || [ "$tries" -gt 130 ] || break
  if found=$(docker ps -q -f "name=^$LW_INFERENCE\$" 2>/dev/null); then
    if [ -n "$found" ]; then seen=yes; else absent=yes; fi
  fi
  tries=$((tries - 1))
  sleep 1
done
fails=yes
case $said in
  "$LW_VERSION refused "*) ;;
  ?*) fails='' ;;
  *) if odd; then said="$told is no plain file in a plain folder: remove it"
    elif [ ! -d "$state" ]; then fails='' said="not proven: there was never an inference here"
    elif [ -z "$seen" ] && [ -n "$absent" ]; then fails='' said="not proven: $LW_INFERENCE does not run; it checks the model when it starts"
    # A start of the nucleus, and no deployment: it was proven when it was deployed.
    elif [ "$before" = "$LW_VERSION" ]; then fails='' said="no answer in time; it was active before"
    else said="no answer in time"
    fi ;;
esac
if [ -n "$fails" ]; then
  # The version before goes on serving, also after inference's next start.
  [ -z "$before" ] || [ "$before" = "$LW_VERSION" ] || put "$folder/active" "$before"
  echo "linewatch: inference does not serve $LW_MODEL $LW_VERSION: $said" >&2
  exit 1
fi
echo "linewatch: $LW_MODEL: $said"
# Nucleus lite appends lines of its own to this script, and one of them fails before systemd 253: it ends here.
[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready
exit 0
