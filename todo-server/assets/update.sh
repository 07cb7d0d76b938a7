#!/usr/bin/env bash
# Downloads the third-party files of the documentation pages into this folder, from the npm packages
# below: compressed scripts and style sheets, with each package's licenses beside them.
# To raise a version, change it and its integrity (npm view NAME@VERSION dist.integrity), run this,
# read the diff of the license files, and run tests/browser/run.sh.
# Needs npm, tar, gzip and openssl; the same versions give the same bytes.
#
# redoc stays at 2.x: 3.x is twice the size and has more remote addresses (icons, trace export).
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch NAME VERSION INTEGRITY: the package's files in $work/NAME
fetch() {
  local tarball digest
  tarball=$(cd "$work" && npm pack "$1@$2" --silent --ignore-scripts)
  digest="sha512-$(openssl dgst -sha512 -binary "$work/$tarball" | base64 -w 0)"
  if [ "$digest" != "$3" ]; then
    echo "$1@$2: integrity is $digest, expected $3" >&2
    exit 1
  fi
  mkdir "$work/$1"
  tar -xzf "$work/$tarball" -C "$work/$1" --strip-components 1
}

# store FILE: compresses it without name or time; removes the reference to the unserved source map
store() {
  sed -E '/^(\/\/|\/\*)# sourceMappingURL=[^ ]*( \*\/)?$/d' "$1" | gzip -9n >"${1##*/}.gz"
}

fetch swagger-ui-dist 5.35.0 \
  sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==
fetch redoc 2.5.4 \
  sha512-M6jWhG1qoBnH6TFmzJnstyCZ87HmOY/UzDm78mHiYihEdlV/YcS9ogOo1NlElnJMeLsyxHFe2yFc4sNjHTrABQ==

swagger=$work/swagger-ui-dist
redoc=$work/redoc/bundles

# The only remote resource of ReDoc is a logo in its footer. It omits the logo if the image fails to
# load, so this replaces it with an image that fails without a request.
logo='https://cdn.redoc.ly/redoc/logo-mini.svg'
if [ "$(grep -o "$logo" "$redoc/redoc.standalone.js" | wc -l)" != 1 ]; then
  echo "redoc.standalone.js does not contain $logo exactly once: check its remote resources" >&2
  exit 1
fi
sed -i "s|$logo|data:,|" "$redoc/redoc.standalone.js"

store "$swagger/swagger-ui-bundle.js"
store "$swagger/swagger-ui.css"
store "$redoc/redoc.standalone.js"

# The scripts' first lines reference these names.
cat "$swagger/NOTICE" "$swagger/LICENSE" "$swagger/swagger-ui-bundle.js.LICENSE.txt" \
  >swagger-ui-bundle.js.LICENSE.txt
cat "$work/redoc/LICENSE" "$redoc/redoc.standalone.js.LICENSE.txt" \
  "$redoc"/*.worker.js.LICENSE.txt >redoc.standalone.js.LICENSE.txt
