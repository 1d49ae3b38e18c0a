"""Starts a service as `ex4d serve` does, with settings as JSON on the command line and its log on standard error."""

import json
import logging
import sys

from ex4d.service import ServiceSettings, run_service

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(run_service(ServiceSettings(**json.loads(sys.argv[1]))))
