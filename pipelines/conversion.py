"""The work behind `vqbeam convert`: write the checkpoint, say what it is, and check its pixel range on images."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from models import find
from models.bart.checkpoint import check_pair, convert_bart
from models.find import BART_FOLDERS, CLIP_FOLDER
from models.image_tokenizer import TokenizerSpec
from models.vqgan import checkpoint as vqgans
from models.weights.native import refuse_taken
from models.weights.tokenizer_files import is_whole
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.images import ImageOptions, decode_image

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def convert_checkpoint(args: argparse.Namespace) -> int:
    """The exit code; `CheckpointError` and `ConfigError` are left to the caller, as is `UsageError`."""
    if "://" in args.target:
        raise UsageError(f"{args.target}: DST must be a local folder; copy it to the store afterwards")
    source, target = find(args.source, args.model_cache), Path(args.target)
    if source.bart_path is None:
        _convert_vqgan(source.path, target, args)
        return 0
    vqgan = vqgans.find(source.path) if source.path.is_dir() else None
    if vqgan is None:
        flag = "--check" if args.check else "--pixel_range" if args.pixel_range else None
        if flag:
            raise UsageError(f"{flag} is about a VQGAN, and {args.source} holds a DALL·E BART only; leave it out")
        _convert_bart(source.bart_path, target, args.name)
        return 0
    folders = target / BART_FOLDERS[0], target / vqgans.FOLDER, target / CLIP_FOLDER
    for folder in folders:
        refuse_taken(folder)
    check_pair(source.bart.config, vqgans.open_checkpoint(vqgan).spec)
    _convert_bart(source.bart_path, folders[0], args.name)
    _convert_vqgan(vqgan, folders[1], args)
    if source.clip_path is not None:
        shutil.copytree(source.clip_path, folders[2], dirs_exist_ok=True)
        print(f"{folders[2]}: copied, the CLIP that ranks")
    return 0


def _convert_vqgan(source: Path, target: Path, args: argparse.Namespace) -> None:
    written = vqgans.convert(source, target, pixel_range=args.pixel_range, name=args.name)
    spec = written.spec
    kind = "encoder and decoder" if spec.has_encoder else "decoder only"
    print(
        f"{target}: {spec.name}, {kind}, {spec.resolution}x{spec.resolution} pixels -> "
        f"{spec.grid}x{spec.grid} codes of {spec.codebook_size}, pixels in {_shown(spec.pixel_range)}\n"
        f"codebook {written.codebook_id()[:16]}, weights {written.weights_id()[:16]}"
    )
    if args.check:
        _check(target, spec, [Path(image) for image in args.check])


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


def _check(folder: Path, spec: TokenizerSpec, images: list[Path]) -> None:
    """Print how well images survive under each pixel range; the wrong one costs several dB."""
    if not spec.has_encoder:
        raise UsageError("--check needs an encoder, and this checkpoint has a decoder only")
    pixels = np.stack([_read(image, spec.resolution) for image in images])
    stored = spec.pixel_range
    quality = {}
    for pixel_range in dict.fromkeys((stored, *PIXEL_RANGES)):
        checkpoint = find(str(folder), "", pixel_range).tokenizer
        tokenizer = checkpoint.load(device="cpu", dtype="float32", batch_size=1)
        squared_errors = []
        for image in np.split(pixels, len(pixels)):
            difference = tokenizer.decode(tokenizer.encode(image)).astype(np.float32) - image
            squared_errors.append(np.square(difference).mean())
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
    """uint8 [size, size, 3]. Raises `UsageError` for what is no image."""
    try:
        return decode_image(path.read_bytes(), ImageOptions(size=size)).pixels
    except (OSError, RowRejected, RowFiltered) as error:
        raise UsageError(f"--check {path}: {error}") from error


def _shown(pixel_range: tuple[float, float]) -> str:
    return f"[{pixel_range[0]:g}, {pixel_range[1]:g}]"
