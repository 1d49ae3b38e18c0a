"""The service: it takes shots from clients over ZeroMQ, keeps them in SQLite, and has worker processes make them.

Nothing here imports torch, so the front stays small and starts at once; workers do (see `backend.service.worker`).
"""

from backend.service.keys import KeyFiles, create_keys
from backend.service.pruning import prune
from backend.service.server import run_service
from backend.service.settings import ServiceError, ServiceSettings

__all__ = ["KeyFiles", "ServiceError", "ServiceSettings", "create_keys", "prune", "run_service"]
