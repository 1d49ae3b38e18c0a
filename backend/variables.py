"""Names of the environment variables by which one process hands a machine's settings to others of ours.

Apart from the code that heeds them: the service passes them on to its workers, and shall not import torch for a name.
"""

MODELS_VARIABLE = "EX4D_MODELS"
VRAM_LIMIT_VARIABLE = "EX4D_VRAM_LIMIT_GB"
