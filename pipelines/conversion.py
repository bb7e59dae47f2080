"""The work behind `vqbeam convert`: write the checkpoint, say what it is, and check its pixel range on pictures."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.checkpoints import VQGANCheckpoint, convert, load_checkpoint
from models.locate import locate_model
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageOptions, decode_image

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def convert_checkpoint(args: argparse.Namespace) -> int:
    """The exit code; `CheckpointError` and `ConfigError` are left to the caller, as is `UsageError`."""
    if "://" in args.target:
        raise UsageError(f"{args.target}: DST must be a local folder; copy it to the store afterwards")
    source = locate_model(args.source, args.model_cache)
    written = convert(source, Path(args.target), pixel_range=args.pixel_range, name=args.name)
    config = written.config
    kind = "encoder and decoder" if written.has_encoder else "decoder only"
    print(
        f"{args.target}: {written.name}, {kind}, {config.resolution}x{config.resolution} pixels -> "
        f"{config.grid}x{config.grid} codes of {config.n_embed}, pixels in {_shown(config.pixel_range)}\n"
        f"codebook {written.codebook_id()[:16]}, weights {written.weights_id()[:16]}"
    )
    if args.check:
        _check(written, [Path(image) for image in args.check])
    return 0


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
