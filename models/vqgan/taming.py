"""Find and read the YAML that describes a checkpoint of taming-transformers, or of what grew out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.errors import CheckpointError, ConfigError

NETWORK_KEYS = frozenset(("model", "ddconfig"))  # of a YAML: taming's and Lightning's, Emu3.5's
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
    configs = network_yamls(folder) or network_yamls(folder.parent / "configs")
    if not configs:
        raise CheckpointError(
            f"{weights}: no .yaml beside it with the network's ddconfig; "
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
    model = load_yaml(path).get("model")
    model = model if isinstance(model, dict) else {}
    params = model.get("params")
    params = params if isinstance(params, dict) else {}
    _check_network(params, "model.params", path)
    target = str(model.get("target", "")).rpartition(".")[2]
    if target not in QUANTIZERS:
        raise CheckpointError(
            f"{path}: model.target is {model.get('target')!r}; {' and '.join(QUANTIZERS)} are supported"
        )
    return {**network_options(params, "model.params", path), "quantizer": QUANTIZERS[target]}


def network_options(params: Mapping[str, Any], where: str, path: Path) -> dict[str, Any]:
    """What stands beside a `ddconfig` as options of `VQGANConfig`, but for the quantiser.

    `where` it stands in the YAML `path` is for messages. Raises `CheckpointError` for what is missing, `ConfigError`.
    """
    _check_network(params, where, path)
    absent = [name for name in ("embed_dim", "n_embed") if name not in params]
    if absent:
        raise CheckpointError(f"{path}: {where} lacks {' and '.join(absent)}")
    if params.get("remap") is not None:
        raise CheckpointError(f"{path}: {where}.remap is not supported: codes would be renumbered")
    attention = params["ddconfig"].get("attn_type", "vanilla")
    if attention not in ("vanilla", "none"):
        raise ConfigError(f"{path}: attn_type {attention!r} is not supported; expected vanilla or none")
    without = {"attn_resolutions": [], "middle_attention": False} if attention == "none" else {}
    return {
        **params["ddconfig"],
        **without,
        "embed_dim": params["embed_dim"],
        "n_embed": params["n_embed"],
        "pixel_range": (-1.0, 1.0),
    }


def _check_network(params: Mapping[str, Any], where: str, path: Path) -> None:
    if not isinstance(params.get("ddconfig"), dict):
        raise CheckpointError(f"{path}: has no {where}.ddconfig, so it does not describe a VQGAN")


def network_yamls(folder: Path) -> list[Path]:
    """The YAML files that describe a network: lightning writes a second one, for its trainer, beside them."""
    if not folder.is_dir():
        return []
    candidates = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return [path for path in candidates if not NETWORK_KEYS.isdisjoint(load_yaml(path))]


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file, empty if it holds something else. Raises `CheckpointError` for what is no YAML."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not YAML ({error})") from error
    return values if isinstance(values, dict) else {}
