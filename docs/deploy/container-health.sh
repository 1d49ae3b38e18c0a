#!/bin/sh
# Whether the backend in this container replies: 0, or 1 with the reason. It asks for the list of jobs, which loads
# neither PyTorch nor a GPU.
set -eu

data=${EX4D_CONTAINER_DATA:-/data}
address=${EX4D_CONTAINER_ADDRESS:-tcp://0.0.0.0:47747}
exec ex4d jobs --quiet --backend "tcp://127.0.0.1:${address##*:}" \
    --client-key "$data/keys/health.key_secret" --server-key "$data/keys/server.key" >/dev/null
