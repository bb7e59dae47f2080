"""Open the folder of a transformers CLIP model: its configuration, its weights and what identifies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, ConfigError
from models.weights.checkpoint import Checkpoint
from models.weights.checks import MOST, MOST_LAYERS, names_in
from models.weights.native import CONFIG_NAME, WEIGHTS_NAME, folder_name, json_beside, read_weights
from models.weights.pickled import read_state

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPConfig, CLIPModel

PICKLE_NAME = "pytorch_model.bin"
SIZES = (  # of either half, or of both
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
    "max_position_embeddings", "image_size", "patch_size",
)  # fmt: skip
POSITIONS = "position_ids"  # 0, 1, 2, ...: stored as weights by transformers before 4.31


@dataclass(frozen=True, kw_only=True)
class ClipCheckpoint(Checkpoint["CLIPModel"]):
    """A CLIP of which only the configuration has been read: see `Checkpoint`."""

    config: CLIPConfig

    @property
    def flops(self) -> float:
        """Roughly what an image costs."""
        vision = self.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        return 2.0 * tokens * vision.num_hidden_layers * 12 * vision.hidden_size**2

    def builder(self) -> Callable[[], CLIPModel]:
        from transformers import CLIPModel

        return partial(CLIPModel, self.config)

    def load(self) -> CLIPModel:
        """The `network`, for inference."""
        import torch

        model = self.network()
        for part in (model.text_model, model.vision_model):  # the only buffers, not among the weights
            embeddings = part.embeddings
            embeddings.position_ids = torch.arange(embeddings.position_ids.shape[-1])[None]
        return model.eval().requires_grad_(False)


def open_clip_checkpoint(folder: Path | str) -> ClipCheckpoint:
    """Read the configuration of a local folder with `config.json` and `model.safetensors` or `pytorch_model.bin`.

    Raises `CheckpointError` if there is no CLIP, `ConfigError` if transformers is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name one that holds a transformers CLIP model")
    values = json_beside(folder)
    if values.get("model_type") != "clip":
        what = (
            f"{CONFIG_NAME} is of model_type {values.get('model_type')!r}" if values else f"there is no {CONFIG_NAME}"
        )
        raise CheckpointError(
            f"{folder}: no CLIP here ({what}). Expected the folder of a transformers CLIPModel: {CONFIG_NAME}, "
            f"{WEIGHTS_NAME} or {PICKLE_NAME}, tokenizer files; found {names_in(folder)}"
        )
    file = next((folder / name for name in (WEIGHTS_NAME, PICKLE_NAME) if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder}: the CLIP has no weights; copy {WEIGHTS_NAME} or {PICKLE_NAME} (in one file)")
    return ClipCheckpoint(
        path=folder,
        format="transformers",
        name=folder_name(folder),
        config=_config(values, folder / CONFIG_NAME),
        files=(file,),
        leaves=partial(_read_leaves, file),
    )


def _read_leaves(file: Path) -> Iterator[tuple[str, Tensor]]:
    found = read_weights(file) if file.name == WEIGHTS_NAME else read_state(file).items()
    for name, leaf in found:
        if name.rpartition(".")[2] != POSITIONS:
            yield name, leaf


def _config(values: dict[str, Any], path: Path) -> CLIPConfig:
    try:
        from transformers import CLIPConfig
    except ImportError as error:
        raise ConfigError("scoring with CLIP needs transformers: pip install transformers") from error
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = CLIPConfig.from_dict(values)
        _check(config)
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise CheckpointError(f"{path}: not the configuration of a CLIP ({error})") from error
    return config


def _check(config: CLIPConfig) -> None:
    """Raise `ValueError` for values that transformers accepts here but that fail, or fill the memory, later."""
    from transformers.activations import ACT2FN

    for part in (config.text_config, config.vision_config):
        for name in SIZES:
            value, most = getattr(part, name, 1), MOST_LAYERS if name == "num_hidden_layers" else MOST
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be 1 to {most}, not {value}")
        if part.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {part.hidden_act!r} is none that transformers has")
