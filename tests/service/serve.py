"""Starts a service as `ex4d serve` does, with settings as JSON on the command line and its log on standard error."""

import json
import logging
import sys

from ex4d.machine import MachineSettings
from ex4d.service import ServiceSettings, run_service
from ex4d.service.logs import start_log

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    start_log(logging.StreamHandler(sys.stderr), logging.INFO, "%(message)s", settings.pop("log_format", "text"))
    if "machine" in settings:
        settings["machine"] = MachineSettings(**settings["machine"])
    sys.exit(run_service(ServiceSettings(**settings)))
