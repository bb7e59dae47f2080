"""The work behind `vqbeam convert`: write the checkpoint, say what it is, and check its pixel range on pictures."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.bart.checkpoint import convert_bart, open_bart
from models.bart.model_pair import check_pair
from models.find import locate_model
from models.model_folders import BART_FOLDERS, CLIP_FOLDER, VQGAN_FOLDER, find_clip, find_vqgan, first_bart
from models.vqgan.checkpoint import VQGANCheckpoint, convert, load_checkpoint, open_checkpoint
from models.weights.native import refuse_taken
from models.weights.tokenizer_files import is_whole
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageOptions, decode_image

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def convert_checkpoint(args: argparse.Namespace) -> int:
    """The exit code; `CheckpointError` and `ConfigError` are left to the caller, as is `UsageError`."""
    if "://" in args.target:
        raise UsageError(f"{args.target}: DST must be a local folder; copy it to the store afterwards")
    source, target = locate_model(args.source, args.model_cache), Path(args.target)
    bart = first_bart(source)
    if bart is None:
        _convert_vqgan(source, target, args)
        return 0
    vqgan = find_vqgan(source) if source.is_dir() else None
    if vqgan is None:
        flag = "--check" if args.check else "--pixel_range" if args.pixel_range else None
        if flag:
            raise UsageError(f"{flag} is about a VQGAN, and {args.source} holds a DALL·E BART only; leave it out")
        _convert_bart(bart, target, args.name)
        return 0
    places = target / BART_FOLDERS[0], target / VQGAN_FOLDER, target / CLIP_FOLDER
    for place in places:
        refuse_taken(place)
    check_pair(open_bart(bart).config, open_checkpoint(vqgan).config)
    _convert_bart(bart, places[0], args.name)
    _convert_vqgan(vqgan, places[1], args)
    clip = find_clip(source)
    if clip is not None:
        shutil.copytree(clip, places[2], dirs_exist_ok=True)
        print(f"{places[2]}: copied, the CLIP that ranks")
    return 0


def _convert_vqgan(source: Path, target: Path, args: argparse.Namespace) -> None:
    written = convert(source, target, pixel_range=args.pixel_range, name=args.name)
    config = written.config
    kind = "encoder and decoder" if written.has_encoder else "decoder only"
    print(
        f"{target}: {written.name}, {kind}, {config.resolution}x{config.resolution} pixels -> "
        f"{config.grid}x{config.grid} codes of {config.n_embed}, pixels in {_shown(config.pixel_range)}\n"
        f"codebook {written.codebook_id()[:16]}, weights {written.weights_id()[:16]}"
    )
    if args.check:
        _check(written, [Path(image) for image in args.check])


def _convert_bart(source: Path, target: Path, name: str | None) -> None:
    written = convert_bart(source, target, name=name)
    config = written.config
    print(
        f"{target}: {written.name}, DALL·E BART, {config.encoder_layers}+{config.decoder_layers} layers of width "
        f"{config.d_model}, {config.max_text_length} pieces of text -> {config.image_length} codes of "
        f"{config.image_vocab_size}\nweights {written.weights_id()[:16]}"
    )
    if not is_whole(written.tokenizer):
        print(
            f"warning: {source} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); put it into {target} "
            "before you generate",
            file=sys.stderr,
        )


def _check(checkpoint: VQGANCheckpoint, images: list[Path]) -> None:
    """Print how well pictures survive under each pixel range; the wrong one costs several dB."""
    if not checkpoint.has_encoder:
        raise UsageError("--check needs an encoder, and this checkpoint has a decoder only")
    pixels = np.stack([_read(image, checkpoint.config.resolution) for image in images])
    model = load_checkpoint(checkpoint)
    stored = checkpoint.config.pixel_range
    quality = {}
    for pixel_range in dict.fromkeys((stored, *PIXEL_RANGES)):
        model.config = replace(checkpoint.config, pixel_range=pixel_range)
        squared_errors = []
        for picture in torch.from_numpy(pixels).split(1):
            difference = model.decode(model.encode(picture)).float() - picture.float()
            squared_errors.append(difference.square().mean().item())
        quality[pixel_range] = 10 * np.log10(255**2 / max(float(np.mean(squared_errors)), 1e-10))
        mark = "  <- as written" if pixel_range == stored else ""
        print(f"pixels in {_shown(pixel_range)}: {quality[pixel_range]:.2f} dB PSNR{mark}")
    best = max(quality, key=lambda pixel_range: quality[pixel_range])
    if best != stored:
        print(
            f"warning: pixels in {_shown(best)} reconstruct {quality[best] - quality[stored]:.2f} dB better than "
            f"{_shown(stored)}, which was written; convert again with --pixel_range {best[0]:g},{best[1]:g}",
            file=sys.stderr,
        )


def _read(path: Path, size: int) -> np.ndarray:
    """uint8 [size, size, 3]. Raises `UsageError` for what is no picture."""
    try:
        return decode_image(path.read_bytes(), ImageOptions(size=size)).pixels
    except (OSError, RowRejected, RowFiltered) as error:
        raise UsageError(f"--check {path}: {error}") from error


def _shown(pixel_range: tuple[float, float]) -> str:
    return f"[{pixel_range[0]:g}, {pixel_range[1]:g}]"
