"""Runs a campaign against the service or its client; `--help` lists them. See `campaigns`."""

import sys

from campaigns.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
