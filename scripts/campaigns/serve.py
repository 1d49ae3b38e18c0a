"""Starts a service as `ex4d serve` does, with settings as JSON on the command line and its log on standard error."""

import json
import logging
import sys

from ex4d.service import ServiceSettings, run_service


def main(settings: str) -> int:
    """Serve until a signal; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_service(ServiceSettings(**json.loads(settings)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
