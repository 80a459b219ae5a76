#!/bin/sh
# Carries out a command with secrets from files: NAME_FILE=/run/secrets/x becomes NAME=<its content>, for
# names that end in PASSWORD, AUTH_STRING, API_KEY or URL (others, as SSL_CERT_FILE, mean the file itself).
# With REDIS_PASSWORD and REDIS_HOST, the URLs of cache, memory and results get the password too, unless
# they are set.
set -eu

for name in $(env | sed -n 's/^\([A-Z][A-Z0-9_]*_\(PASSWORD\|AUTH_STRING\|API_KEY\|URL\)\)_FILE=.*$/\1/p'); do
    file=$(printenv "${name}_FILE")
    if [ ! -r "$file" ]; then
        echo "entrypoint: ${name}_FILE names $file, which cannot be read" >&2
        exit 2
    fi
    value=$(cat "$file")
    if [ -z "$value" ]; then
        echo "entrypoint: $file is empty" >&2
        exit 2
    fi
    export "${name}=${value}"
    unset "${name}_FILE"
done

if [ -n "${REDIS_PASSWORD:-}" ] && [ -n "${REDIS_HOST:-}" ]; then
    scheme=redis
    [ "${REDIS_TLS:-false}" = false ] || scheme=rediss
    base="${scheme}://:${REDIS_PASSWORD}@${REDIS_HOST}:${REDIS_PORT:-6379}"
    export PREFECT_REDIS_MESSAGING_URL="${PREFECT_REDIS_MESSAGING_URL:-${base}/0}"
    export PREFECT_SERVER_DOCKET_URL="${PREFECT_SERVER_DOCKET_URL:-${base}/0}"
    export REFLEXION_CACHE="${REFLEXION_CACHE:-${base}/1}"
    export REFLEXION_MEMORY="${REFLEXION_MEMORY:-${base}/1}"
    export REFLEXION_RESULTS="${REFLEXION_RESULTS:-${base}/1}"
    unset REDIS_PASSWORD
fi

exec "$@"
