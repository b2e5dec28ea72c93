# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Puts the package beside the other versions, whole or not at all. It runs at every start of the nucleus, so what is
# there unharmed is only read: the disk may be full by then.
folder=$LW_DIRECTORY/models/$LW_MODEL
sums() ( sha256sum <"$LW_PACKAGE" && cd "$folder/$LW_VERSION" && find . -type f | sort | while read -r file; do sha256sum "$file"; done )
if said=$(sums 2>/dev/null) && [ "$said" = "$(cat "$folder/.$LW_VERSION.sum" 2>/dev/null)" ]; then
  exit 0
fi
mkdir -p "$folder" && chmod 0755 "$LW_DIRECTORY/models" "$folder" || exit 1
rm -rf "$folder/.new" "$folder/.old"
# The version that serves stays, and the one before it, and what inference's settings pin.
pinned=$LW_DIRECTORY/state/inference/serving/$LW_MODEL.pinned
kept() ( [ ! -L "$pinned" ] && [ -f "$pinned" ] && head -c 1100 "$pinned" | grep -qxF "$1" )
active=$(head -n 1 "$folder/active" 2>/dev/null)
before=$(cat "$folder/.before" 2>/dev/null)
for old in "$folder"/[0-9]*.[0-9]*.[0-9]*/; do
  version=$(basename "$old")
  case $version in "$LW_VERSION" | "$active" | "$before") continue ;; esac
  [ ! -d "$old" ] || kept "$version" || rm -rf "$old" "$folder/.$version.sum"
done
mkdir -p "$folder/.new" && tar -x -o -f "$LW_PACKAGE" -C "$folder/.new" && chmod -R u=rwX,go=rX "$folder/.new" || exit 1
sync
[ ! -e "$folder/$LW_VERSION" ] || mv "$folder/$LW_VERSION" "$folder/.old" || exit 1
mv "$folder/.new" "$folder/$LW_VERSION" || exit 1
rm -rf "$folder/.old"
# Last, and without it the next start unpacks once more.
sums >"$folder/.sum.new" && mv "$folder/.sum.new" "$folder/.$LW_VERSION.sum"
exit 0
