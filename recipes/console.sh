# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# The page is published on this machine only, and asks for the password in secrets/console/page-password.
mkdir -p "$d/evidence" || exit 1
set -- "$@" -p "127.0.0.1:$LW_PORT:8080" -v "$d/evidence:/var/lib/linewatch/evidence:ro" -e CONSOLE_HOST=0.0.0.0 \
  -e CONSOLE_PASSWORD_FILE=/run/linewatch/page-password -e CONSOLE_CLOUD_API_TOKEN_FILE=/run/linewatch/api-token @SETTINGS@
