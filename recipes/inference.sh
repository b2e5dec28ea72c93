# shellcheck shell=dash disable=SC2154,SC2086
# SPDX-License-Identifier: Apache-2.0
# The keys that this release trusts, and those of the configuration; no other key stays.
mkdir -p "$d/models/trusted-keys" || exit 1
chmod 0755 "$d/models" "$d/models/trusted-keys"
find "$d/models/trusted-keys" -name '*.pem' -delete
IFS=', '
for key in $LW_RELEASE_KEYS $LW_TRUSTED_KEYS; do
  number=$((number + 1))
  printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$key" >"$d/models/trusted-keys/$number.pem"
done
unset IFS
set -- "$@" -v "$d/models:/var/lib/linewatch/models:ro" \
  -e INFERENCE_TRUSTED_KEYS_DIR=/var/lib/linewatch/models/trusted-keys -e INFERENCE_HOST=0.0.0.0 @SETTINGS@
