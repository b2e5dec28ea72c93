# shellcheck shell=dash disable=SC2154,SC2086
# SPDX-License-Identifier: Apache-2.0
# The keys that this release trusts, and those of the configuration; no other key stays. Made in memory and compared, so
# where nothing changed a full disk is no obstacle; else all are on the disk before the old ones go.
k=$d/models/trusted-keys
mkdir -p "$k" && new=$(mktemp -d /dev/shm/lw.XXXXXX) || exit 1
IFS=', '
for key in $LW_RELEASE_KEYS $LW_TRUSTED_KEYS; do
  n=$((n + 1))
  printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$key" >"$new/$n.pem"
done
unset IFS
code=
diff -r "$new" "$k" >/dev/null || ( rm -rf "$k.new" "$k.old"
  cp -r "$new" "$k.new" && mv "$k" "$k.old" && mv "$k.new" "$k" && rm -r "$k.old" ) || code=1
rm -r "$new"
[ -z "$code" ] || fail "$k can't be written; is the disk full?" || exit 1
chmod a+rx "$d/models" && chmod -R a+rX "$k" || exit 1
set -- "$@" -v "$d/models:/var/lib/linewatch/models:ro" \
  -e INFERENCE_TRUSTED_KEYS_DIR=/var/lib/linewatch/models/trusted-keys -e INFERENCE_HOST=0.0.0.0 @SETTINGS@
