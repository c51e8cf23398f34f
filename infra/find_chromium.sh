#!/bin/sh
# Sees to a Chromium for the browser tests: installs Debian's where it may, else says what to install.
set -eu
for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    echo "Installing Chromium from Debian's packages, once" >&2
    log=$(mktemp)
    if apt-get update > "$log" 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core >> "$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 15 "$log" >&2
fi
printf '\nspanstream: %s\n' "the browser tests need Chromium. Install it (Debian, Ubuntu: apt-get install chromium" \
    "fonts-dejavu-core; macOS: brew install --cask chromium), then run make test-browser again." >&2
exit 1
