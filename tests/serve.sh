# Starts a server in an empty folder and stops it when the script ends; sourced by the scripts that
# need one.
# shellcheck shell=bash

# serve SERVER [NAME=VALUE...]: sets `address` to where it listens. `dir` is a temporary folder, its
# log `$dir/log`, its working directory `$dir/run`. Ends the script if it never listens.
serve() {
  local server=$1
  shift
  # An environment of its own, so that no setting of the caller's reaches the server.
  mkdir -p "$dir/run"
  # Where the last one listened is not where this one does.
  rm -f "$dir/log"
  (cd "$dir/run" && exec env -i PATH="$PATH" HOST=127.0.0.1 PORT=0 "$@" "$server" 2>"$dir/log") &
  pid=$!
  address=
  for _ in $(seq 300); do
    address=$(sed -n 's|.*listening on \(http://127\.0\.0\.1:[0-9]*\).*|\1|p;T;q' \
      "$dir/log" 2>/dev/null || true)
    if [ -n "$address" ] || ! kill -0 "$pid" 2>/dev/null; then
      break
    fi
    sleep 0.1
  done
  if [ -z "$address" ]; then
    echo "the server did not say where it listens:" >&2
    cat "$dir/log" >&2
    exit 1
  fi
}

# stop [SIGNAL]: ends the server, TERM by default, and waits for its end.
stop() {
  if [ -n "$pid" ]; then
    kill -s "${1:-TERM}" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=
  fi
}

finish() {
  stop
  rm -rf "$dir"
}

dir=$(mktemp -d)
pid=
trap finish EXIT
