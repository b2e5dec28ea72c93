# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# The classic nucleus only; nothing rests on it.
docker stop -t 12 "$LW_NAME" >/dev/null 2>&1 || true
