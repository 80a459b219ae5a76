#!/bin/sh
# What tests need and pip cannot bring: a Chromium for pages, bubblewrap for one of the sandboxes. Installs
# what is missing from Debian, as root or by sudo, and says what to install where that cannot be.
set -eu
missing=""
for browser in chromium chromium-browser google-chrome; do
    if command -v "$browser" >/dev/null; then found=$browser; fi
done
[ -n "${found:-}" ] || missing="chromium"
command -v bwrap >/dev/null || missing="$missing bubblewrap"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    as_root="none"
fi
if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
    echo "The tests need, and cannot install here: $missing. Install them with your system's packages." >&2
    exit 1
fi
echo "Installing what the tests need: $missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # one word for each package
$as_root apt-get install -y -qq --no-install-recommends $missing >&2
