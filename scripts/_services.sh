# shellcheck shell=bash
# Sourced by scripts/test: `install_services` gets the programs that some tests talk to: a camera, brokers, a
# database. They are Debian packages and need root; without them those tests skip, so nothing is ever fatal here.

services=(
    openssl                      # makes the certificates of the tests
    python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good
    glib-networking              # TLS for GStreamer
    ffmpeg                       # an RTMP server
    mosquitto nats-server redis-server postgresql
)
# A subscriber that is not Python. Where Node.js came from elsewhere, Debian's would be in its way.
command -v npm >/dev/null || services+=(nodejs npm)

# What docs/examples/subscribe.mjs needs.
node_packages=(zeromq@6 @msgpack/msgpack@3)

warn() { printf 'warning: %s\n  -> %s\n' "$1" "$2" >&2; }

missing_services() {
    dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "${services[@]}" 2>/dev/null \
        | awk '$1 == "installed" { print $2 }' | sort -u | comm -13 - <(printf '%s\n' "${services[@]}" | sort -u)
}

# Into the virtual environment, where the tests look for them.
install_node_packages() {
    if ! command -v npm >/dev/null; then
        warn "npm is not here" "the test of the Node.js subscriber skips"
        return
    fi
    [ -d .venv/node/node_modules/@msgpack/msgpack ] && [ -d .venv/node/node_modules/zeromq ] && return
    say "installing for Node.js: ${node_packages[*]}"
    mkdir -p .venv/node
    if ! (cd .venv/node && npm install --no-audit --no-fund --loglevel=error "${node_packages[@]}" >/dev/null); then
        warn "npm could not install ${node_packages[*]}" "the test of the Node.js subscriber skips"
    fi
}

install_services() {
    local -a missing
    local by_hand="tests that need them skip; on Debian and Ubuntu: apt-get install ${services[*]}"
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        warn "the servers for tests can only be installed with apt-get, which is not here" "$by_hand"
        return
    fi
    mapfile -t missing < <(missing_services)
    if [ "${#missing[@]}" -eq 0 ]; then
        say "the servers for tests are installed already"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        warn "only root can install ${missing[*]}" "$by_hand"
        return
    fi
    say "installing the servers for tests: ${missing[*]}"
    apt-get update -qq || warn "apt-get update failed" "going on with the lists of packages that are here"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
        warn "apt-get could not install ${missing[*]}" "$by_hand"
    fi
}
