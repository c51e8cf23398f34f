#!/bin/sh
# Bundles the page (pipeline/serve/ui) with the Node of .venv, once: again only when its sources change.
# Every way it can fail ends in a sentence that says what to do. Called by make; NODE_BIN names another folder of node, npm.
#     make_ui.sh            build pipeline/serve/ui/dist
#     make_ui.sh --check    check the types and run the tests that need no browser, too
set -eu
cd "$(dirname "$0")/.."
bin=${NODE_BIN:-$PWD/.venv/bin}

fail() {
    printf '\nspanstream: %s\n' "$*" >&2
    exit 1
}

cd pipeline/serve/ui
locked=$(cat package-lock.json .npmrc | cksum)
checked=$(find src test test.mjs tsconfig.json package-lock.json -type f | LC_ALL=C sort | xargs cksum | cksum)
sources=$(find src build.mjs package.json package-lock.json tsconfig.json -type f | LC_ALL=C sort | xargs cksum | cksum)
[ -f dist/index.html ] && [ "$(cat dist/stamp 2> /dev/null)" = "$sources" ] && built=1 || built=
[ "${1:-}" = --check ] || [ -z "$built" ] || exit 0

[ -x "$bin/node" ] || fail "there is no $bin/node to bundle the page with: run make venv"
PATH="$bin:$PATH"
export PATH
if [ "$(cat node_modules/.stamp 2> /dev/null)" != "$locked" ]; then
    log=$(mktemp)
    npm ci --no-progress --ignore-scripts > "$log" 2>&1 || {
        tail -n 15 "$log" >&2
        fail "the page's packages were not installed. The first run needs the network; behind a proxy set HTTPS_PROXY," \
            "for a registry of your own npm_config_registry. Then run make again."
    }
    rm -f "$log"
    printf '%s\n' "$locked" > node_modules/.stamp
fi
if [ -z "$built" ]; then
    node build.mjs || fail "the page was not built; esbuild's words stand above"
    printf '%s\n' "$sources" > dist/stamp
fi
if [ "${1:-}" = --check ] && [ "$(cat node_modules/.checked 2> /dev/null)" != "$checked" ]; then
    node node_modules/typescript/bin/tsc --noEmit || fail "the page's types are wrong; tsc's words stand above"
    node test.mjs || fail "a test of the page failed; its words stand above"
    printf '%s\n' "$checked" > node_modules/.checked
fi
