"""`vqbeam convert SRC DST`: any VQGAN or DALL·E BART that we read, written as `config.json` + `model.safetensors`."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import find
from models.find import Model
from models.image_tokenizer import CENTER_CROP, PixelRange, TokenizerOptions, TokenizerSpec, open_tokenizer
from pipelines import flags
from pipelines.command import Command
from pipelines.terminal import say
from transforms.errors import RowFiltered, RowRejected, UsageError
from transforms.image_options import image_options
from transforms.images import decode_image
from transforms.own_preprocessing import RULES

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder or file: local, gs://, s3://, hf://owner/name")
    parser.add_argument("target", metavar="DST", help="the local folder to write")
    parser.add_argument("--name", help="what the model is called in the data that it makes (default: SRC's folder)")
    parser.add_argument(
        "--check",
        metavar="IMAGE",
        nargs="+",
        type=Path,
        default=[],
        help="reconstruct these images under both pixel ranges, print the PSNR, warn if the other range does better "
        "(of a VQGAN)",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--resize",
        choices=(CENTER_CROP, *RULES),
        help="what --resize auto is to be for the model, if its files do not say it: chameleon for Chameleon's own",
    )
    flags.add_model_flags(group, *flags.TOKENIZER_OPTIONS, "model_cache")


UNFINISHED_PAIR = ".unfinished"  # in the folder while a pair is written into it


@dataclass(frozen=True)
class ConvertOptions:
    name: str | None
    check: tuple[Path, ...]
    pixel_range: PixelRange | None
    image_size: int | None
    weights: str | None
    resize: str | None

    @property
    def tokenizer(self) -> TokenizerOptions:
        return TokenizerOptions(self.pixel_range, self.image_size, self.weights, self.resize)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Write the checkpoint, say what it is, and check its pixel range. Returns the exit code.

    Raises `UsageError`, `CheckpointError` and `ConfigError`.
    """
    from models.vqgan import checkpoint as vqgans

    if "://" in args.target:
        raise UsageError(f"{args.target}: DST must be a local folder; copy it to the store afterwards")
    source, target = find(args.source, args.model_cache), Path(args.target)
    chosen = flags.fill(ConvertOptions, args)
    vqgan = vqgans.find(source.path) if source.path.is_dir() else None
    if source.bart_path is None:
        _convert_tokenizer(source.path, target, chosen)
    elif vqgan is not None:
        _convert_pair(source, vqgan, target, chosen)
    else:
        named = [name for name in ("check", "resize", *flags.TOKENIZER_OPTIONS) if getattr(chosen, name)]
        flag = f"--{named[0]}" if named else None
        if flag:
            raise UsageError(f"{flag} is about a VQGAN, and {args.source} holds a DALL·E BART only; leave it out")
        _convert_bart(source.bart_path, target, chosen.name)
    return 0


def _convert_pair(source: Model, vqgan: Path, target: Path, chosen: ConvertOptions) -> None:
    from models.bart.checkpoint import check_pair
    from models.find import BART_FOLDERS, CLIP_FOLDER
    from models.vqgan import checkpoint as vqgans
    from models.weights.native import forget_model, refuse_taken

    bart_target, vqgan_target, clip_target = (target / name for name in (BART_FOLDERS[0], vqgans.FOLDER, CLIP_FOLDER))
    unfinished = target / UNFINISHED_PAIR
    for folder in (bart_target, vqgan_target, clip_target):
        if unfinished.exists():
            forget_model(folder)
        refuse_taken(folder)
    check_pair(source.bart.config, vqgans.open_checkpoint(vqgan).spec)
    target.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    _convert_bart(source.bart_path or source.path, bart_target, chosen.name)
    _convert_tokenizer(vqgan, vqgan_target, chosen)
    if source.clip_path is not None:
        shutil.copytree(source.clip_path, clip_target, dirs_exist_ok=True)
        say(f"{clip_target}: copied, the CLIP that ranks")
    unfinished.unlink()


def _convert_tokenizer(source: Path, target: Path, chosen: ConvertOptions) -> None:
    from models.weights.native import refuse_taken

    refuse_taken(target)
    written = open_tokenizer(source, chosen.tokenizer).convert(target, chosen.name)
    spec = written.spec
    kind = "decoder only" if not spec.has_encoder else "encoder and decoder" if spec.has_decoder else "encoder only"
    say(
        f"{target}: {spec.name}, {kind}, {spec.resolution}x{spec.resolution} pixels -> "
        f"{spec.grid}x{spec.grid} codes of {spec.codebook_size}, pixels in {_shown(spec.pixel_range)}\n"
        f"codebook {written.codebook_id()[:16]}, weights {written.weights_id()[:16]}"
    )
    if chosen.check:
        _check(target, spec, chosen.check)


def _convert_bart(source: Path, target: Path, name: str | None) -> None:
    from models.bart.checkpoint import convert_bart
    from models.weights.tokenizer_files import is_whole

    written = convert_bart(source, target, name=name)
    config = written.config
    say(
        f"{target}: {written.name}, DALL·E BART, {config.encoder_layers}+{config.decoder_layers} layers of "
        f"width {config.d_model}, {config.max_text_length} pieces of text -> {config.image_length} codes of "
        f"{config.image_vocab_size}\nweights {written.weights_id()[:16]}"
    )
    if not is_whole(written.tokenizer):
        say(
            f"warning: {source} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); put it into {target} "
            "before you generate",
            file=sys.stderr,
        )


def _check(folder: Path, spec: TokenizerSpec, images: tuple[Path, ...]) -> None:
    """Print how well images survive under each pixel range; the wrong one costs several dB."""
    if not (spec.has_encoder and spec.has_decoder):
        lacks, has = ("an encoder", "a decoder") if not spec.has_encoder else ("a decoder", "an encoder")
        raise UsageError(f"--check needs {lacks}, and this checkpoint has {has} only")
    pixels = [_read(image, spec)[None] for image in images]
    stored = spec.pixel_range
    quality = {}
    for pixel_range in dict.fromkeys((stored, *PIXEL_RANGES)):
        tokenizer = find(str(folder), "", TokenizerOptions(pixel_range)).tokenizer.load(
            device="cpu", dtype="float32", batch_size=1
        )
        differences = [tokenizer.decode(tokenizer.encode(image)).astype(np.float32) - image for image in pixels]
        squared_error = np.mean([np.square(difference).mean() for difference in differences])
        quality[pixel_range] = 10 * np.log10(255**2 / max(float(squared_error), 1e-10))
        mark = "  <- as written" if pixel_range == stored else ""
        say(f"pixels in {_shown(pixel_range)}: {quality[pixel_range]:.2f} dB PSNR{mark}")
    best = max(quality, key=lambda pixel_range: quality[pixel_range])
    if best != stored:
        say(
            f"warning: pixels in {_shown(best)} reconstruct {quality[best] - quality[stored]:.2f} dB better than "
            f"{_shown(stored)}, which was written; convert again with --pixel_range {best[0]:g},{best[1]:g}",
            file=sys.stderr,
        )


def _read(path: Path, spec: TokenizerSpec) -> np.ndarray:
    """uint8 [H, W, 3] as the model takes it. Raises `UsageError` if the file is no image."""
    try:
        return decode_image(path.read_bytes(), image_options(spec.resolution, spec.preprocessing, {})).pixels
    except (OSError, RowRejected, RowFiltered) as error:
        raise UsageError(f"--check {path}: {error}") from error


def _shown(pixel_range: PixelRange) -> str:
    return f"[{pixel_range[0]:g}, {pixel_range[1]:g}]"


COMMAND = Command(
    "Read a VQGAN checkpoint of vqgan-jax (config.json + flax_model.msgpack), taming-transformers (.ckpt + .yaml) or "
    "min-dalle (detoker.pt, decoder only), or a DALL·E BART of dalle-mini (config.json + flax_model.msgpack) or "
    "min-dalle (encoder.pt + decoder.pt) with its tokenizer, and write it in vqbeam's own format, which loads fastest "
    "and says what it is. A folder that holds both, as min-dalle's does, becomes one with dalle_bart and vqgan in it.",
    add_flags,
    run,
    examples=(
        "vqbeam convert vqgan_imagenet_f16_16384 my_model",
        "vqbeam convert vqgan_imagenet_f16_16384 checked_model --check photo.png",
    ),
)
