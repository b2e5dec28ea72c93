# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# The page is published on this machine only. Where secrets/console/users.json is, people sign in by name; else with the
# password in secrets/console/page-password.
mkdir -p "$d/evidence" || exit 1
of=$d/secrets/console
[ ! -s "$of/users.json" ] || set -- "$@" -e CONSOLE_USERS_FILE=/run/linewatch/users.json
[ ! -s "$of/oidc-client-secret" ] || set -- "$@" -e CONSOLE_OIDC_CLIENT_SECRET_FILE=/run/linewatch/oidc-client-secret
set -- "$@" -p "127.0.0.1:$LW_PORT:8080" -v "$d/evidence:/var/lib/linewatch/evidence:ro" -e CONSOLE_HOST=0.0.0.0 \
  -e CONSOLE_PASSWORD_FILE=/run/linewatch/page-password -e CONSOLE_CLOUD_API_TOKEN_FILE=/run/linewatch/api-token @SETTINGS@
