"""`vqbeam convert SRC DST`: any VQGAN or DALL·E BART that we read, written as `config.json` + `model.safetensors`."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models import find
from pipelines import flags
from pipelines.command import Command
from transforms.errors import RowFiltered, RowRejected, UsageError

if TYPE_CHECKING:
    import numpy as np

    from models.find import Model
    from models.image_tokenizer import TokenizerSpec

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder or file: local, gs://, s3://, hf://owner/name")
    parser.add_argument("target", metavar="DST", help="the local folder to write")
    parser.add_argument("--name", help="what the model is called in the data that it makes (default: SRC's folder)")
    parser.add_argument(
        "--check",
        metavar="IMAGE",
        nargs="+",
        help="reconstruct these images under both pixel ranges, print the PSNR, warn if the other range does better "
        "(of a VQGAN)",
    )
    flags.add_checkpoint_flags(parser.add_argument_group("model"))


@dataclass(frozen=True)
class ConvertOptions:
    source: Path
    target: Path
    name: str | None
    check: tuple[Path, ...]
    pixel_range: tuple[float, float] | None


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Write the checkpoint, say what it is, and check its pixel range. Returns the exit code.

    Raises `UsageError`, `CheckpointError` and `ConfigError`.
    """
    from models.vqgan import checkpoint as vqgans

    if "://" in args.target:
        raise UsageError(f"{args.target}: DST must be a local folder; copy it to the store afterwards")
    source = find(args.source, args.model_cache)
    chosen = ConvertOptions(
        source.path, Path(args.target), args.name, tuple(map(Path, args.check or ())), args.pixel_range
    )
    vqgan = vqgans.find(source.path) if source.path.is_dir() else None
    if source.bart_path is None:
        _convert_vqgan(chosen)
    elif vqgan is not None:
        _convert_pair(chosen, source, vqgan)
    else:
        flag = "--check" if chosen.check else "--pixel_range" if chosen.pixel_range else None
        if flag:
            raise UsageError(f"{flag} is about a VQGAN, and {args.source} holds a DALL·E BART only; leave it out")
        _convert_bart(replace(chosen, source=source.bart_path))
    return 0


def _convert_pair(chosen: ConvertOptions, source: Model, vqgan: Path) -> None:
    from models.bart.checkpoint import check_pair
    from models.find import BART_FOLDERS, CLIP_FOLDER
    from models.vqgan import checkpoint as vqgans
    from models.weights.native import refuse_taken

    bart_target, vqgan_target, clip_target = (
        chosen.target / name for name in (BART_FOLDERS[0], vqgans.FOLDER, CLIP_FOLDER)
    )
    for folder in (bart_target, vqgan_target, clip_target):
        refuse_taken(folder)
    check_pair(source.bart.config, vqgans.open_checkpoint(vqgan).spec)
    _convert_bart(replace(chosen, source=source.bart_path or source.path, target=bart_target))
    _convert_vqgan(replace(chosen, source=vqgan, target=vqgan_target))
    if source.clip_path is not None:
        shutil.copytree(source.clip_path, clip_target, dirs_exist_ok=True)
        print(f"{clip_target}: copied, the CLIP that ranks")


def _convert_vqgan(chosen: ConvertOptions) -> None:
    from models.vqgan import checkpoint as vqgans

    written = vqgans.convert(chosen.source, chosen.target, pixel_range=chosen.pixel_range, name=chosen.name)
    spec = written.spec
    kind = "encoder and decoder" if spec.has_encoder else "decoder only"
    print(
        f"{chosen.target}: {spec.name}, {kind}, {spec.resolution}x{spec.resolution} pixels -> "
        f"{spec.grid}x{spec.grid} codes of {spec.codebook_size}, pixels in {_shown(spec.pixel_range)}\n"
        f"codebook {written.codebook_id()[:16]}, weights {written.weights_id()[:16]}"
    )
    if chosen.check:
        _check(chosen.target, spec, chosen.check)


def _convert_bart(chosen: ConvertOptions) -> None:
    from models.bart.checkpoint import convert_bart
    from models.weights.tokenizer_files import is_whole

    written = convert_bart(chosen.source, chosen.target, name=chosen.name)
    config = written.config
    print(
        f"{chosen.target}: {written.name}, DALL·E BART, {config.encoder_layers}+{config.decoder_layers} layers of "
        f"width {config.d_model}, {config.max_text_length} pieces of text -> {config.image_length} codes of "
        f"{config.image_vocab_size}\nweights {written.weights_id()[:16]}"
    )
    if not is_whole(written.tokenizer):
        print(
            f"warning: {chosen.source} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); put it into "
            f"{chosen.target} before you generate",
            file=sys.stderr,
        )


def _check(folder: Path, spec: TokenizerSpec, images: tuple[Path, ...]) -> None:
    """Print how well images survive under each pixel range; the wrong one costs several dB."""
    import numpy as np

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
    """uint8 [size, size, 3]. Raises `UsageError` if the file is no image."""
    from transforms.images import ImageOptions, decode_image

    try:
        return decode_image(path.read_bytes(), ImageOptions(size=size)).pixels
    except (OSError, RowRejected, RowFiltered) as error:
        raise UsageError(f"--check {path}: {error}") from error


def _shown(pixel_range: tuple[float, float]) -> str:
    return f"[{pixel_range[0]:g}, {pixel_range[1]:g}]"


COMMAND = Command(
    "Read a VQGAN checkpoint of vqgan-jax (config.json + flax_model.msgpack), taming-transformers (.ckpt + .yaml) or "
    "min-dalle (detoker.pt, decoder only), or a DALL·E BART of dalle-mini (config.json + flax_model.msgpack) or "
    "min-dalle (encoder.pt + decoder.pt) with its tokenizer, and write it in vqbeam's own format, which loads fastest "
    "and says what it is. A folder that holds both, as min-dalle's does, becomes one with dalle_bart and vqgan in it.",
    add_flags,
    run,
)
