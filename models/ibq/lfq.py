"""What Open-MAGVIT2's LFQ has of its own: its network, the names of its weights, and where its image size stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import ConfigError
from models.image_tokenizer import TokenizerOptions
from models.vqgan.config import MAGVIT2, SIGNS, LevelShape

FORMAT = "lfq"
CLASSES = "Open-MAGVIT2's VQModel"
CLASS_PATH = re.compile(r"(?:.*\.)?lfqgan(?:_pretrain)?\.VQModel")
DATA = ("validation", "test", "train")  # in the YAML, of which each may have its size


def is_lfq(class_path: str) -> bool:
    return CLASS_PATH.fullmatch(class_path) is not None


def network_options(about: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """As options of `VQGANConfig`, those that differ from what the YAML says `about` a network like taming's.

    Raises `ConfigError` for sizes that are none, or code vectors of another width than the network's.
    """
    try:
        ch, mults, blocks = int(about["ch"]), [int(mult) for mult in about["ch_mult"]], int(about["num_res_blocks"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"ddconfig: ch, ch_mult and num_res_blocks are needed ({error})") from error
    if about.get("z_channels") != about["embed_dim"]:
        raise ConfigError(f"ddconfig: z_channels {about.get('z_channels')} is not embed_dim {about['embed_dim']}")
    levels = tuple(LevelShape(ch * mult, blocks, False) for mult in mults)
    return {
        "quantizer": SIGNS,
        "network": MAGVIT2,
        "resolution": image_size,
        "middle_attention": False,
        "attn_resolutions": (),
        "encoder_levels": levels,
        "decoder_levels": levels,
    }


def image_size(values: Mapping[str, Any], path: Path, options: TokenizerOptions) -> int:
    """The side of the images: as asked for, else what the YAML says of its data; the network's `resolution` is unused.

    Raises `ConfigError` if nothing says it.
    """
    if options.image_size is not None:
        return options.image_size
    for part in DATA:
        found: Any = values
        for name in ("data", "init_args", part, "params", "config", "size"):
            found = found.get(name) if isinstance(found, Mapping) else None
        if type(found) is int:
            return found
    raise ConfigError(f"{path}: does not say how large its images are: give image_size (128 and 256 are in use)")


def ours(name: str) -> str:
    """Our name for one of theirs."""
    return re.sub(r"\.upsample\.conv1\.", ".upsample.", re.sub(r"^(encoder|decoder)\.mid_block\.", r"\1.mid.", name))
