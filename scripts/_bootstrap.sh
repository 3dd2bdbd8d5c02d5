# shellcheck shell=bash
# Sourced by the other scripts: `bootstrap` makes .venv with the locked dependencies and this project in it.
# Needs only Python 3.11 or newer; does nothing when neither the lock nor pyproject.toml has changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { if [ -t 1 ]; then printf '\033[1m==> %s\033[0m\n' "$*"; else printf '==> %s\n' "$*"; fi; }
fail() { printf 'error: %s\n  -> %s\n' "$1" "$2" >&2; exit 1; }

find_python() {
    local name
    for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3 python; do
        if [ -n "$name" ] && "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "there is no Python 3.11 or newer with venv" \
        "install one (apt-get install python3 python3-venv), or set PYTHON to its path"
}

bootstrap() {
    local python stamp wanted problem
    stamp=.venv/framewire.stamp
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    wanted=$(.venv/bin/python - <<'PYTHON'
import hashlib
import pathlib
import sys

parts = [pathlib.Path(name).read_bytes() for name in ("requirements.lock", "pyproject.toml")]
print(hashlib.sha256(b"\0".join([sys.version.encode(), *parts])).hexdigest())
PYTHON
)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        say "dependencies are installed already (requirements.lock has not changed)"
    else
        say "installing the locked dependencies into .venv (the first time this takes a few minutes)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
        say "installing framewire into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
        printf '%s\n' "$wanted" > "$stamp"
    fi
    if ! problem=$(.venv/bin/python -c 'import cv2' 2>&1); then
        fail "OpenCV cannot be imported: ${problem##*$'\n'}" \
            "it needs two system libraries: apt-get install libgl1 libglib2.0-0"
    fi
}
