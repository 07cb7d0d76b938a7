# Installs the missing requirements of .ci/run, which sources this file: packages of Debian and
# cargo.
# shellcheck shell=bash

packages=()
command -v llvm-cov-22 >/dev/null || packages+=(llvm-22)
command -v chromium >/dev/null || packages+=(chromium)
command -v dockerd >/dev/null || packages+=(docker.io iptables)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
{ command -v cc && command -v make; } >/dev/null || packages+=(build-essential)
command -v ps >/dev/null || packages+=(procps)
command -v curl >/dev/null || packages+=(curl)
command -v python3 >/dev/null || packages+=(python3)
command -v aiosmtpd >/dev/null || packages+=(python3-aiosmtpd)
command -v npm >/dev/null || packages+=(nodejs npm)
if [ ${#packages[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
# Unoptimised: to compile them takes longer than they run.
cargo llvm-cov --version >/dev/null 2>&1 || cargo install --debug --locked --quiet cargo-llvm-cov@0.9.1
cargo deny --version >/dev/null 2>&1 || cargo install --debug --locked --quiet cargo-deny@0.20.2

# The tests run PostgreSQL in a Docker engine if one is available. Otherwise this starts a separate
# engine for this run, if possible.
if [ -z "${TEST_DATABASE_URL:-}" ] && ! docker version >/dev/null 2>&1; then
    engine=$(mktemp -d)
    if .ci/docker-engine start "$engine"; then
        trap '.ci/docker-engine stop "$engine"' EXIT
        export DOCKER_HOST="unix://$engine/docker.sock"
    else
        rm -rf "$engine"
        echo "NOT RUN in a container: no Docker engine could be started; local PostgreSQL is used"
    fi
fi
# Without access to a registry, builds an image from this machine's PostgreSQL.
if docker version >/dev/null 2>&1 && [ -z "${TODO_TEST_POSTGRES_IMAGE:-}" ]; then
    if ! timeout 60 docker pull -q postgres:17-alpine >/dev/null 2>&1; then
        export TODO_TEST_POSTGRES_IMAGE=localhost/todo-postgres:local
        .ci/postgres-image "$TODO_TEST_POSTGRES_IMAGE"
    fi
fi
