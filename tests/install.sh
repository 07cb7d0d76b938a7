#!/usr/bin/env bash
# Installs a program that some tests need, from Debian's packages, if it is missing, and prints its
# path. pgbouncer-1.24, the first PgBouncer in Debian that tracks prepared statements, is built from
# Debian's source. Of a folder with a package-lock.json beside this script, it installs the npm
# packages, and prints the folder. The tests call this script themselves.
#   tests/install.sh PROGRAM [PACKAGE]    the package has the program's name by default
#   tests/install.sh FOLDER
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
leftovers=()
trap 'rm -rf "${leftovers[@]}"' EXIT

packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "this test needs: apt-get install $*, as root" >&2
    exit 1
  fi
  # Packages must not start services: the tests start the programs themselves.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    leftovers+=("$policy")
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "$@" >&2
}

# The source package of Debian 13.
pgbouncer_1_24() {
  local built=${XDG_CACHE_HOME:-$HOME/.cache}/todo-tests/pgbouncer-1.24.1
  if [ ! -x "$built" ]; then
    local needed=(build-essential ca-certificates curl libevent-dev libssl-dev pkg-config) dir
    for package in "${needed[@]}"; do
      dpkg -s "$package" >/dev/null 2>&1 || { packages "${needed[@]}" && break; }
    done
    dir=$(mktemp -d)
    leftovers+=("$dir")
    curl -sSfL --max-time 120 -o "$dir/source" \
      https://deb.debian.org/debian/pool/main/p/pgbouncer/pgbouncer_1.24.1.orig.tar.gz
    sha256sum --quiet -c - >&2 <<<"da72a3aba13072876d055a3e58dd4aba4a5de4ed6148e73033185245598fd3e0  $dir/source"
    tar -xzf "$dir/source" -C "$dir" --strip-components 1
    (cd "$dir" && ./configure --without-cares --without-pam && make -j2 pgbouncer) >"$dir/log" 2>&1 ||
      { tail -n 20 "$dir/log" >&2 && exit 1; }
    mkdir -p "${built%/*}"
    mv "$dir/pgbouncer" "$built"
  fi
  echo "$built"
}

# Needs no compiler: none of the packages that run has native code.
npm_packages() {
  local folder=$1 installed=$1/node_modules/.installed wanted
  command -v npm >/dev/null || packages nodejs npm
  if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
    echo "this test needs Node.js 20 or later; this is $(node --version)" >&2
    exit 1
  fi
  wanted=$(sha256sum <"$folder/package-lock.json")
  # Several tests may start at once.
  exec 9<"$folder/package-lock.json"
  flock 9
  if [ "$wanted" != "$(cat "$installed" 2>/dev/null)" ]; then
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund >&2)
    echo "$wanted" >"$installed"
  fi
  echo "$folder"
}

here=$(cd "$(dirname "$0")" && pwd)
if [ "$1" = pgbouncer-1.24 ]; then
  pgbouncer_1_24
elif [ -e "$here/$1/package-lock.json" ]; then
  npm_packages "$here/$1"
else
  command -v "$1" >/dev/null || packages "${2:-$1}"
  command -v "$1"
fi
