# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Where parts come from, and where their evidence goes.
source=$LW_SOURCE_DIRECTORY
case $source in /*) ;; *) source=$d/$source ;; esac
mkdir -p "$source" "$d/evidence" && chown 10001:10001 "$d/evidence" || exit 1
set -- "$@" -v "$source:/source:ro" -v "$d/evidence:/var/lib/linewatch/evidence" \
  -e CAPTURE_PATH="/source/$LW_PATH" -e CAPTURE_INFERENCE_ADDRESS=inference:8001 @SETTINGS@
