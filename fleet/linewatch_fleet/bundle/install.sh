#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs this bundle on a device without any network: checks it, loads the images, deploys the components locally.
#
#   sudo sh install.sh --key release-public.pem            checks the signature, loads, deploys
#   sudo sh install.sh --key ... --dry-run                 checks, and says what it would do
#   sudo sh install.sh --key ... --load-only               loads the images; nothing is deployed
#
# The public key must have come to you another way than this bundle. Safe to run again. Exit 3: the check said no.
# This script is a part of what it checks: who does not trust the way that the bundle came checks it before, with
# README.txt's three commands or with `linewatch bundle verify`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
key=
dry_run=
load_only=
refuse() { echo "install: $*" >&2; exit 3; }
fail() { echo "install: $*" >&2; exit 1; }
say() { echo "install: $*"; }

while [ $# -gt 0 ]; do
  case $1 in
    --key) [ $# -ge 2 ] || fail "--key: name the public key's file"; key=$2; shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    --load-only) load_only=yes; shift ;;
    -h | --help) sed -n '3,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "$1: there is no such option; --help lists them" ;;
  esac
done
[ -n "$key" ] || fail "--key FILE is needed: the public key that releases are signed with, brought here another way than this bundle"
[ -s "$key" ] || fail "--key: there is no file $key"
key=$(cd "$(dirname "$key")" && pwd)/$(basename "$key")
cd "$here"

# 1. The bundle is what was signed: the signature over the sums, every sum, and no file that has none.
command -v openssl >/dev/null || fail "openssl is needed to check the signature; install it, or check elsewhere with: linewatch bundle verify"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
base64 -d SHA256SUMS.sig >"$scratch/signature" 2>/dev/null || refuse "SHA256SUMS.sig is missing or unreadable: this bundle is not signed"
openssl dgst -sha256 -verify "$key" -signature "$scratch/signature" SHA256SUMS >/dev/null 2>&1 || refuse "the signature is not one by $key"
sha256sum -c SHA256SUMS >"$scratch/sums" 2>&1 || { grep -v ': OK$' "$scratch/sums" | head -n 5 >&2; refuse "files differ from their sums; copy the bundle again"; }
cut -c 67- SHA256SUMS | sort >"$scratch/told"
find . ! -type d ! -name SHA256SUMS ! -name SHA256SUMS.sig | cut -c 3- | sort >"$scratch/there"
cmp -s "$scratch/told" "$scratch/there" || { diff "$scratch/told" "$scratch/there" | head -n 5 >&2; refuse "there are files that were not signed"; }
say "signature and sums hold"

# 2. Is the machine one that this is for, and is it fit?
machine=$(uname -m)
wanted=$(cat machine)
[ "$machine" = "$wanted" ] || refuse "this bundle is for $wanted, this machine is $machine"
docker info >/dev/null 2>&1 || fail "Docker does not answer: install Docker Engine 20.10 or newer, start it, and run this as root"
if command -v python3 >/dev/null; then python3 doctor.pyz || true; fi

deployment=
for nucleus in /greengrass/v2/bin/greengrass-cli ggl-cli; do
  if command -v "$nucleus" >/dev/null; then deployment=$nucleus; break; fi
done

if [ -n "$dry_run" ]; then
  sed 's/^/install: would load /' images.txt
  [ -n "$load_only" ] || sed "s|^|install: would deploy with ${deployment:-nothing, no nucleus is here}: |" components.txt
  exit 0
fi

# 3. Images, under the names that the recipes in this bundle use. What is there is left alone.
missing=
while read -r reference; do
  docker image inspect "$reference" >/dev/null 2>&1 || missing=yes
done <images.txt
if [ -n "$missing" ]; then
  say "loading images"
  tar -C images -cf - . | docker load >"$scratch/load" 2>&1 || { tail -n 5 "$scratch/load" >&2; fail "docker load failed; is the disk full?"; }
fi
while read -r reference; do
  docker image inspect "$reference" >/dev/null 2>&1 || fail "$reference is not there after loading; see $(docker --version)"
  say "image $reference"
done <images.txt
[ -z "$load_only" ] || exit 0

# 4. The components, by the nucleus's own command line, from this folder.
set --
case $deployment in
  */greengrass-cli)
    while read -r component; do set -- "$@" --merge "$component"; done <components.txt
    "$deployment" deployment create --recipeDir "$here/recipes" --artifactDir "$here/artifacts" "$@"
    say "follow it with: $deployment component list" ;;
  ggl-cli)
    # It takes ten components at a time; local deployments add to what is there.
    deploy() { "$deployment" deploy --recipe-dir "$here/recipes" --artifacts-dir "$here/artifacts" "$@"; }
    while read -r component; do
      set -- "$@" --add-component "$component"
      if [ $# -eq 20 ]; then deploy "$@"; set --; fi
    done <components.txt
    [ $# -eq 0 ] || deploy "$@"
    say "follow it with: journalctl -f -u 'ggl.*'" ;;
  *) fail "the images are loaded, but there is no greengrass-cli and no ggl-cli here; install a nucleus (docs/first-device.md) and run this again" ;;
esac
