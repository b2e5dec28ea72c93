# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Puts the package beside the other versions, whole or not at all. It runs at every start of the nucleus.
folder=$LW_DIRECTORY/models/$LW_MODEL
mkdir -p "$folder" && chmod 0755 "$LW_DIRECTORY/models" "$folder" || exit 1
rm -rf "$folder/.new" "$folder/.old"
mkdir -p "$folder/.new" && tar -x -o -f "$LW_PACKAGE" -C "$folder/.new" && chmod -R u=rwX,go=rX "$folder/.new" || exit 1
if diff -qr "$folder/.new" "$folder/$LW_VERSION" >/dev/null 2>&1; then
  rm -rf "$folder/.new"
  exit 0
fi
sync
[ ! -e "$folder/$LW_VERSION" ] || mv "$folder/$LW_VERSION" "$folder/.old" || exit 1
mv "$folder/.new" "$folder/$LW_VERSION" || exit 1
rm -rf "$folder/.old"
