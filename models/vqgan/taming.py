"""Find and read the YAML that describes a taming-transformers checkpoint; used by `models/vqgan/checkpoint.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from models.errors import CheckpointError, ConfigError

QUANTIZERS = {"VQModel": "nearest", "GumbelVQ": "gumbel"}  # by the last part of the YAML's `model.target`


def find_taming(path: Path) -> tuple[Path, Path] | None:
    """The weights and the YAML of a checkpoint; None if there is none.

    `path` is a `.ckpt` file, a folder that holds both, or one of taming's log folders (`checkpoints/*.ckpt`,
    `configs/*.yaml`). Raises `CheckpointError` if several could be meant, or the YAML is missing.
    """
    if path.is_dir():
        found = sorted(path.glob("*.ckpt")) or sorted(path.glob("checkpoints/*.ckpt"))
    else:
        found = [path] if path.suffix in (".ckpt", ".pt", ".pth") else []
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(str(weights.relative_to(path)) for weights in found[:5])
        raise CheckpointError(f"{path}: holds several checkpoints ({names}); name the file")
    weights, folder = found[0], found[0].parent
    configs = _vqgan_yamls(folder) or _vqgan_yamls(folder.parent / "configs")
    if not configs:
        raise CheckpointError(
            f"{weights}: no .yaml beside it with the network's model.params.ddconfig; "
            "put the configuration that came with the checkpoint into the same folder"
        )
    if len(configs) > 1:
        same_stem = [config for config in configs if config.stem == weights.stem]
        if len(same_stem) != 1:
            names = ", ".join(config.name for config in configs[:5])
            raise CheckpointError(f"{folder}: several configurations ({names}); keep the one of {weights.name}")
        configs = same_stem
    return weights, configs[0]


def read_taming_config(path: Path) -> dict[str, Any]:
    """The YAML as options of `VQGANConfig`. Raises `CheckpointError` for a network that is not taming's VQGAN."""
    model = _load(path).get("model")
    model = model if isinstance(model, dict) else {}
    params = model.get("params")
    if not isinstance(params, dict) or not isinstance(params.get("ddconfig"), dict):
        raise CheckpointError(f"{path}: has no model.params.ddconfig, so it does not describe a VQGAN")
    target = str(model.get("target", "")).rpartition(".")[2]
    if target not in QUANTIZERS:
        raise CheckpointError(
            f"{path}: model.target is {model.get('target')!r}; {' and '.join(QUANTIZERS)} are supported"
        )
    absent = [name for name in ("embed_dim", "n_embed") if name not in params]
    if absent:
        raise CheckpointError(f"{path}: model.params lacks {' and '.join(absent)}")
    if params.get("remap") is not None:
        raise CheckpointError(f"{path}: model.params.remap is not supported: codes would be renumbered")
    attention = params["ddconfig"].get("attn_type", "vanilla")
    if attention not in ("vanilla", "none"):
        raise ConfigError(f"{path}: attn_type {attention!r} is not supported; expected vanilla or none")
    without = {"attn_resolutions": [], "middle_attention": False} if attention == "none" else {}
    return {
        **params["ddconfig"],
        **without,
        "embed_dim": params["embed_dim"],
        "n_embed": params["n_embed"],
        "quantizer": QUANTIZERS[target],
        "pixel_range": (-1.0, 1.0),
    }


def _vqgan_yamls(folder: Path) -> list[Path]:
    """The YAML files that describe a network: lightning writes a second one, for its trainer, beside them."""
    if not folder.is_dir():
        return []
    candidates = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return [path for path in candidates if "model" in _load(path)]


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not YAML ({error})") from error
    return values if isinstance(values, dict) else {}
