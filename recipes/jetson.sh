# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Only the manifest for Jetson modules fetches their image. Without the runtime, CUDA would be missing without a word.
if [ -n "$LW_JETSON_IMAGE" ] && [ "$(uname -m)" = aarch64 ] && docker image inspect "$LW_JETSON_IMAGE" >/dev/null 2>&1; then
  LW_IMAGE=$LW_JETSON_IMAGE
  set -- "$@" --runtime=nvidia
fi
