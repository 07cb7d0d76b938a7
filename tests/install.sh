#!/usr/bin/env bash
# Installs a program that some tests need (pgbouncer, haproxy), from Debian's packages, if this
# machine lacks it. The tests call it themselves.
#   tests/install.sh PROGRAM [PACKAGE]    the package has the program's name by default
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
package=${2:-$1}
if ! command -v "$1" >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "this test needs $1: install it, for instance with \`apt-get install $package\` as root" >&2
    exit 1
  fi
  # Its package must not start a service of its own: the tests run theirs.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "$package" >&2
fi
command -v "$1"
