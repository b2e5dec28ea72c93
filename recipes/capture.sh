# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Where parts come from, and where their evidence goes.
source=$LW_SOURCE_DIRECTORY
case $source in /*) ;; *) source=$d/$source ;; esac
mkdir -p "$source" "$d/evidence" "$d/evidence-state" && chown 10001:10001 "$d/evidence" || exit 1
# A share that is mounted later shows in the container, too. Docker refuses that below a private mount.
mode=ro
case $(findmnt -n -o PROPAGATION -T "$source") in *shared* | *slave*) mode=ro,rslave ;; esac
set -- "$@" -v "$source:/source:$mode" -v "$d/evidence:/var/lib/linewatch/evidence" \
  -v "$d/evidence-state:/var/lib/linewatch/evidence-state:ro" \
  -e CAPTURE_PATH="/source/$LW_PATH" -e CAPTURE_INFERENCE_ADDRESS=inference:8001 @SETTINGS@
