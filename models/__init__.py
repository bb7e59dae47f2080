"""The networks: image tokenizers, the DALL·E BART that draws codes, and the CLIP that ranks."""

from models.errors import CheckpointError, ConfigError, ModelError
from models.find import Model, find

__all__ = ["CheckpointError", "ConfigError", "Model", "ModelError", "find"]
