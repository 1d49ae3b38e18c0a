#!/bin/sh
# Starts the backend in its container. At the first start it creates the service's keys, and those of the client
# "health" for the container's own health check. All arguments go to `ex4d serve`.
set -eu

data=${EX4D_CONTAINER_DATA:-/data}
address=${EX4D_CONTAINER_ADDRESS:-tcp://0.0.0.0:47747}
mkdir -p "${HOME:-$data/home}"
if [ ! -f "$data/keys/health.key_secret" ]; then
    ex4d serve --create-keys health --data "$data" --quiet >/dev/null
fi
exec ex4d serve --address "$address" --data "$data" "$@"
