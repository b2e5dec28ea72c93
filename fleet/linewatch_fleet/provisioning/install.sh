#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts this folder's files into place on the device, each with its owner and mode. Shows first what it would do; run
# again it keeps what is right. `sh install.sh --help` tells the rest.
set -eu
RUNTIME=@RUNTIME@
THING=@THING@
VERSION=@VERSION@
GREENGRASS=@ROOT@
CREDENTIALS=@CREDENTIALS@
UPLINK=/var/lib/linewatch/uplink

usage() {
  cat <<TEXT
sudo sh install.sh [--yes] [--dry-run] [--installer DIR] [--root DIR]
  --yes            do not ask
  --dry-run        show what would be done, and do nothing
  --installer DIR  classic: the unpacked Greengrass Core software (DIR/lib/Greengrass.jar), to install it, too
  --root DIR       put the files below DIR: for a disk image. Starts and installs nothing
TEXT
}

fail() { echo "install.sh: $1" >&2; exit 1; }

yes='' dry='' installer='' root=''
while [ $# -gt 0 ]; do
  case $1 in
    --yes) yes=1 ;;
    --dry-run) dry=1 ;;
    --installer) [ $# -gt 1 ] || fail "--installer needs a folder"; installer=$2; shift ;;
    --root) [ $# -gt 1 ] || fail "--root needs a folder"; root=$2; shift ;;
    -h|--help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "$0")"
for file in nucleus/config.yaml nucleus/ca.pem nucleus/certificate.pem nucleus/key.pem uplink/ca.pem uplink/certificate.pem uplink/key.pem; do
  [ -s "$file" ] || fail "$file is missing; copy the whole folder that linewatch provision made"
done
if [ -z "$dry" ]; then [ "$(id -u)" = 0 ] || fail "run it as root: sudo sh install.sh"; fi

# A device that is another thing already would lose its identity.
present=''
if [ "$RUNTIME" = lite ]; then
  config=/etc/greengrass/config.yaml
  other=$root/greengrass/v2/alts/current
  [ ! -e "$other" ] || fail "the classic nucleus is installed here; remove it first, or provision with --nucleus classic"
else
  config=$GREENGRASS/linewatch-config.yaml
fi
if [ -e "$root$config" ]; then
  present=$(sed -n 's/^ *thingName: *"\{0,1\}\([^"]*\)"\{0,1\} *$/\1/p' "$root$config")
  [ -z "$present" ] || [ "$present" = "$THING" ] || fail "this device is $present; remove $config first if it is to become $THING"
fi

# ggcore is who the lite runtime runs as; the classic nucleus runs as root.
owner=0:0
if [ "$RUNTIME" = lite ]; then
  if id ggcore >/dev/null 2>&1; then owner=ggcore:ggcore
  elif [ -n "$root" ] || [ -n "$dry" ]; then echo "note: no user ggcore here: owners stay root; run this again once greengrass-lite is installed"
  else fail "there is no user ggcore: install the package greengrass-lite first"
  fi
fi

changed=''
# put SOURCE TARGET OWNER MODE
put() {
  if [ -f "$root$2" ] && cmp -s "$1" "$root$2" && [ "$(stat -c %a "$root$2")" = "$4" ]; then
    echo "keep   $2"
    return
  fi
  changed=1
  if [ -n "$planning" ]; then echo "write  $2 ($3, mode $4)"; return; fi
  install -o "${3%:*}" -g "${3#*:}" -m "$4" "$1" "$root$2.new"
  mv "$root$2.new" "$root$2"
  echo "wrote  $2"
}
# folder PATH OWNER MODE
folder() {
  [ -z "$planning" ] || return 0
  install -d -o "${2%:*}" -g "${2#*:}" -m "$3" "$root$1"
}

files() {
  folder "$(dirname "$config")" 0:0 755
  folder "$CREDENTIALS" "$owner" 700
  put nucleus/ca.pem "$CREDENTIALS/ca.pem" "$owner" 644
  put nucleus/certificate.pem "$CREDENTIALS/certificate.pem" "$owner" 644
  put nucleus/key.pem "$CREDENTIALS/key.pem" "$owner" 600
  put nucleus/config.yaml "$config" "$owner" 644
  # The forwarder's container runs as 10001 and has its own certificate: it never sees the nucleus's.
  folder /var/lib/linewatch 10001:10001 755
  folder "$UPLINK" 10001:10001 700
  put uplink/ca.pem "$UPLINK/ca.pem" 10001:10001 644
  put uplink/certificate.pem "$UPLINK/certificate.pem" 10001:10001 644
  put uplink/key.pem "$UPLINK/key.pem" 10001:10001 600
  if [ "$RUNTIME" = classic ]; then
    # Without it the nucleus may start before Docker after a reboot, and every container component ends BROKEN.
    printf '[Unit]\nWants=docker.service\nAfter=docker.service\n' >"$scratch"
    folder /etc/systemd/system/greengrass.service.d 0:0 755
    put "$scratch" /etc/systemd/system/greengrass.service.d/10-after-docker.conf 0:0 644
  fi
}

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
echo "$THING ($RUNTIME):"
planning=1
files
jar=''
if [ "$RUNTIME" = classic ] && [ -z "$root" ] && [ ! -e "$GREENGRASS/alts/current" ]; then
  if [ -n "$installer" ]; then
    jar=$installer/lib/Greengrass.jar
    [ -f "$jar" ] || fail "$jar is not there: --installer is the folder that the Greengrass Core software was unpacked to"
    command -v java >/dev/null || fail "java is not installed; the classic nucleus needs version 8 or newer"
    echo "run    the installer of the nucleus $VERSION, as a system service"
  else
    echo "note: the nucleus is not installed; run this again with --installer DIR"
  fi
fi
[ -n "$root" ] || command -v docker >/dev/null || echo "note: docker is not installed; the components need it"
[ -z "$dry" ] || exit 0
if [ -z "$changed$jar" ]; then echo "everything is in place"; exit 0; fi
if [ -z "$yes" ]; then
  printf 'go on? [y/N] '
  read -r answer || answer=n
  case $answer in y|Y|yes) ;; *) echo "nothing was changed"; exit 1 ;; esac
fi

planning=''
files
[ -z "$root" ] || exit 0
if [ "$RUNTIME" = lite ]; then
  systemctl restart greengrass-lite.target
elif [ -n "$jar" ]; then
  java -Droot="$GREENGRASS" -Dlog.store=FILE -jar "$jar" --init-config "$config" \
    --component-default-user ggc_user:ggc_group --setup-system-service true
else
  systemctl daemon-reload
  # A new certificate is read at the start.
  if systemctl is-active --quiet greengrass.service; then systemctl restart greengrass.service; fi
fi
echo "done"
