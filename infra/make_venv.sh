#!/bin/sh
# Makes .venv and installs a lock file into it, once: again only when the lock changes or the folder has moved.
# Every way it can fail ends in a sentence that says what to do. Called by make; PYTHON names the interpreter.
#     make_venv.sh requirements.lock | requirements-dev.lock     (the first is a part of the second)
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '\nspanstream: %s\n' "$*" >&2
    exit 1
}

lock=$1
stamp=.venv/$lock.stamp
key_of() { echo "$(cksum < "$1") $(cksum < infra/make_venv.sh) $PWD"; }
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2> /dev/null)" = "$(key_of "$lock")" ]; then
    exit 0
fi

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c "$new_enough" > /dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    for candidate in ${PYTHON:-python3 python}; do
        if found=$("$candidate" -V 2>&1); then
            fail "$candidate is $found, and spanstream needs Python 3.11 or newer. Install one" \
                "(Debian, Ubuntu: apt-get install python3.11 python3.11-venv; macOS: brew install python)," \
                "or name one that is there: make PYTHON=/path/to/python3.12"
        fi
    done
    fail "there is no ${PYTHON:-python3}. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12"
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if ! "$python" -c 'import venv, ensurepip' > /dev/null 2>&1; then
    fail "Python $version has no venv module. Install it (Debian, Ubuntu: apt-get install python$version-venv)," \
        "or name another Python: make PYTHON=/path/to/python3.12"
fi

case $(cat .venv/*.stamp 2> /dev/null | head -n 1) in
    "" | *" $PWD") ;;
    *) rm -rf .venv ;; # its scripts name the folder it was made in
esac
rm -f "$stamp"
if ! .venv/bin/python -c "$new_enough" > /dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv || fail "python -m venv failed; its words stand above"
fi

echo "Installing the locked packages into .venv, once (Python $version)" >&2
log=.venv/install.log
if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet --progress-bar off \
    --no-compile --no-deps --require-hashes --only-binary :all: -r "$lock" > $log 2>&1; then
    tail -n 15 $log >&2
    if grep -qiE 'NewConnectionError|ConnectTimeout|Read timed out|ProxyError|name resolution|unreachable|refused' $log; then
        fail "the package index was not reached. The first run needs the network, later ones do not." \
            "Behind a proxy set HTTPS_PROXY; for an index of your own set PIP_INDEX_URL. Then run make again."
    elif grep -q 'DO NOT MATCH THE HASHES' $log; then
        fail "a package is not the one that was locked: do not install it. A stale cache? pip cache purge, then again."
    elif grep -qiE 'No space left' $log; then
        fail "the disk is full: .venv needs 2 GB."
    elif grep -qiE 'No matching distribution|from versions: none' $log; then
        fail "no wheel of a locked package fits Python $version on $(uname -sm)." \
            "Try another Python: make PYTHON=/path/to/python3.12 (3.11 to 3.14 are known to work on Linux)"
    fi
    fail "pip could not install $lock; all it said stands in $log"
fi

# The packages are used from here, as an editable install would, which needs setuptools and so the network
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD" > "$site/spanstream.pth"
cat > .venv/bin/spanstream << EOF
#!$PWD/.venv/bin/python
import sys

from agents.cli import main

sys.exit(main())
EOF
chmod +x .venv/bin/spanstream
for installed in "$lock" requirements.lock; do
    key_of "$installed" > ".venv/$installed.stamp"
done
