"""`vqbeam convert SRC DST`: any VQGAN or DALL·E BART that we read, written as `config.json` + `model.safetensors`."""

from __future__ import annotations

import argparse

from pipelines import flags as job_flags

DESCRIPTION = (
    "Read a VQGAN checkpoint of vqgan-jax (config.json + flax_model.msgpack), taming-transformers (.ckpt + .yaml) or "
    "min-dalle (detoker.pt, decoder only), or a DALL·E BART of dalle-mini (config.json + flax_model.msgpack) or "
    "min-dalle (encoder.pt + decoder.pt) with its tokenizer, and write it in vqbeam's own format, which loads fastest "
    "and says what it is. A folder that holds both, as min-dalle's does, becomes one with dalle_bart and vqgan in it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a folder or file: local, gs://, s3://, hf://owner/name")
    parser.add_argument("target", metavar="DST", help="the local folder to write")
    parser.add_argument("--name", help="what the model is called in the data that it makes (default: SRC's folder)")
    parser.add_argument(
        "--check",
        metavar="IMAGE",
        nargs="+",
        help="reconstruct these pictures under both pixel ranges, print the PSNR, warn if the other range does better "
        "(of a VQGAN)",
    )
    job_flags.add_checkpoint_flags(parser.add_argument_group("model"))


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    from pipelines.conversion import convert_checkpoint  # torch takes seconds: not for --help

    return convert_checkpoint(args)
