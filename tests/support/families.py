"""Tokenizers of other families with random weights, in the forms in which the public has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.image_tokenizer import TokenizerOptions
from models.llamagen import names
from models.tokenizer_network import TokenizerNetwork
from models.vqgan.names import levels_in, mirrored
from tests.support.paths import GOLDEN

LLAMAGEN, CHAMELEON = GOLDEN / "llamagen_small", GOLDEN / "chameleon_small"
DIFFUSERS, SHOWO = GOLDEN / "diffusers_small", GOLDEN / "showo_small"
IBQ, EMU35 = GOLDEN / "ibq_small", GOLDEN / "emu35_small"
LFQ, MASKGIT = GOLDEN / "lfq_small", GOLDEN / "maskgit_small"
EMU3 = GOLDEN / "emu3_small"
SMALL = TokenizerOptions(image_size=32)  # of LlamaGen's set
REST = {"language_model.model.embed_tokens.weight": torch.ones(4, 4)}  # of a Janus


def golden(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy")


@cache
def llamagen_weights() -> dict[str, Tensor]:
    return torch.load(LLAMAGEN / "vq_ds2_small.pt", weights_only=True)["model"]


def prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value.contiguous().clone() for name, value in weights.items()}


def write_pt(folder: Path, **content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "vq_ds2_small.pt")
    return folder


def write_hub_folder(folder: Path) -> Path:
    """As `PyTorchModelHubMixin` of LlamaGen's class writes it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"codebook_size": 256, "codebook_embed_dim": 8, "z_channels": 32}))
    save_file(prefixed("", llamagen_weights()), folder / "model.safetensors")
    return folder


def write_janus(folder: Path, *, parts: bool = False, pickled: bool = False) -> Path:
    """A whole Janus. In `parts`, the one that holds nothing of the tokenizer is no file of weights at all."""
    folder.mkdir(parents=True)
    config = {"model_type": "multi_modality", "gen_vision_config": {"cls": "VQ-16", "params": {"n_embed": 8}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_size": 384, "image_mean": [0.4, 0.4, 0.4]}))
    weights = prefixed("gen_vision_model.", llamagen_weights())
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    save = torch.save if pickled else save_file
    if not parts:
        save(weights | REST, folder / f"{stem}.{suffix}")
        return folder
    files = [f"{stem}-0000{number}-of-00003.{suffix}" for number in (1, 2, 3)]
    halves = [dict(list(weights.items())[half::2]) for half in (0, 1)]
    placed = dict.fromkeys(halves[0], files[0]) | dict.fromkeys(halves[1], files[1]) | dict.fromkeys(REST, files[2])
    for half, file in zip(halves, files, strict=False):
        save(half, folder / file)
    (folder / files[2]).write_text("not copied in full")
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def write_transformers_janus(folder: Path, prefix: str = "") -> Path:
    """As `JanusVQVAE.save_pretrained` writes it: taming's names, the coarsest level of the decoder first."""
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "janus_hf_small" / "config.json", folder)
    weights = llamagen_weights()
    levels = levels_in(weights)
    renamed = {}
    for name, value in weights.items():
        if name != names.COUNTER:
            renamed[names.ours(names.ours(name, levels), levels)] = value  # mirrored twice: in their order
    save_file(prefixed(prefix, renamed), folder / "model.safetensors")
    return folder


def write_transformers_chameleon(folder: Path, prefix: str = "", decoder: str = "") -> Path:
    """As `ChameleonVQVAE.save_pretrained` writes it: an encoder, and no `decoder`; those of others have one."""
    folder.mkdir(parents=True)
    stored = json.loads((GOLDEN / "chameleon_hf_small" / "config.json").read_text())
    whole = {"model_type": "chameleon", "vq_config": stored} if prefix else stored
    (folder / "config.json").write_text(json.dumps(whole))
    weights = torch.load(CHAMELEON / "vqgan.ckpt", weights_only=True)["state_dict"]
    left_out = ("loss.",) if decoder else ("loss.", "decoder.")
    kept = {name: value for name, value in weights.items() if not name.startswith(left_out)}
    if decoder == "coarsest first":
        kept = {mirrored(name, levels_in(kept)): value for name, value in kept.items()}
    rest = REST if prefix else {}
    save_file(prefixed(prefix, kept) | rest, folder / "model.safetensors")
    return folder


def check_golden(network: TokenizerNetwork, folder: Path, shape: str) -> None:
    """Latents, codes and images of a set equal the original's, but for codes whose margin is next to nothing."""
    latents = network.image_latents(torch.from_numpy(golden(folder, f"inputs{shape}")))
    expected = golden(folder, f"expected_codes{shape}")
    assert np.abs(latents.numpy() - golden(folder, f"expected_latents{shape}")).max() < 2e-4
    codes, margins = network.codes(latents).numpy().reshape(expected.shape), folder / f"margins{shape}.npy"
    certain = np.load(margins) >= 1e-4 if margins.exists() else np.full(expected.shape, True)
    np.testing.assert_array_equal(codes[certain], expected[certain])
    pairs = [(expected, f"expected_recon{shape}")]
    if not shape:
        pairs.append((golden(folder, "random_codes"), "expected_random_recon"))
    for codes, images in pairs:
        with torch.inference_mode():
            vectors = network.quantize.lookup(torch.from_numpy(codes).long())
            made = network.reconstruct(vectors).permute(0, 2, 3, 1).numpy()
        assert np.abs(made - golden(folder, images)).max() < 2e-4


def write_diffusers(folder: Path, *, pickled: bool = False, parts: bool = False, **changed: object) -> Path:
    """As `VQModel.save_pretrained` writes it."""
    folder.mkdir(parents=True)
    stored = json.loads((DIFFUSERS / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | changed))
    weights = load_file(DIFFUSERS / "diffusion_pytorch_model.safetensors")
    suffix, save = ("bin", torch.save) if pickled else ("safetensors", save_file)
    if not parts:
        save(weights, folder / f"diffusion_pytorch_model.{suffix}")
        return folder
    placed = {}
    for number in (1, 2):
        half = dict(list(weights.items())[number - 1 :: 2])
        file = f"diffusion_pytorch_model-0000{number}-of-00002.{suffix}"
        save(half, folder / file)
        placed |= dict.fromkeys(half, file)
    (folder / f"diffusion_pytorch_model.{suffix}.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder
