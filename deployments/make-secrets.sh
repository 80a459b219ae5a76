#!/bin/sh
# Makes the passwords that compose.yaml reads; those that exist stay.
set -eu
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"
chmod 700 "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in postgres_password redis_password; do
    [ -s "$folder/$name" ] || random > "$folder/$name"
done
[ -s "$folder/prefect_auth" ] || printf 'reflexion:%s' "$(random)" > "$folder/prefect_auth"
# Containers read them as users of their own; the folder's mode keeps everybody else out.
chmod 644 "$folder"/*
echo "secrets are in $folder"
