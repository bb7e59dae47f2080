"""The columns that each command writes have a version: a folder with other columns must not be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.clip.pixels import read_clip_pixels
from pipelines.command import find_job
from tests.support.shard_runs import MODEL, SPEC
from tests.support.tiny_clip import SIDE
from transforms.image_options import ImageLimits, ImageOptions
from transforms.inputs.request import InputSchema
from transforms.outputs.layout import ImageOutput
from transforms.work.decode import Decode
from transforms.work.encode import Encode
from transforms.work.evaluate import Candidate, Evaluate
from transforms.work.generate import Generate, GeneratorSettings
from transforms.work.rank import Rank
from transforms.work.step import ClipSettings
from transforms.work.vary import CodeNoise, Vary
from transforms.work.work import Work

COLUMNS = {
    ("encode", 1): "key caption encoding original_width original_height",
    ("decode", 2): "key caption image_path",
    ("rank", 1): "key caption clip_score image original_width original_height",
    ("evaluate", 1): "key caption original_width original_height encoding psnr ssim codes_used perplexity clip_cosine "
    "clip_original clip_reconstruction",
    ("vary", 1): "key caption sample seed encoding image_path width height",
    ("generate", 2): "key prompt sample seed guidance_scale temperature top_k top_p encoding image_path "
    "clip_score rank width height",
}
DRAWING = {"images": 1, "seed": 0, "guidance_scale": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
IMAGE, FILES = ImageOptions(size=16), ImageOutput("png", "files")
OPTIONS = ("guidance_scale", "temperature", "top_k", "top_p")


def works(clip: Path) -> dict[str, Work]:
    """Each command with all that it can write."""
    scorer = ClipSettings(str(clip), "none", "cpu", batch_size=4, threads=1)
    drawn = GeneratorSettings("none", MODEL, slots=1, images_per_slot=1, clip=str(clip))
    return {
        "encode": Encode(MODEL, IMAGE, SPEC),
        "decode": Decode(MODEL, FILES, SPEC),
        "evaluate": Evaluate((Candidate(MODEL, IMAGE, SPEC),), scorer, clip_size=8),
        "rank": Rank(scorer, read_clip_pixels(clip, SIDE), ImageLimits(), keep_images=True),
        "vary": Vary(MODEL, CodeNoise(0.5), {}, IMAGE, FILES, SPEC, {}, keep_tokens=True),
        "generate": Generate(drawn, DRAWING, FILES, "none", SPEC, keep_tokens=True),
    }


@pytest.mark.parametrize(("command", "version"), COLUMNS)
def test_a_version_has_its_columns(command: str, version: int, tiny_clip: Path) -> None:
    """Other columns need another version here and in the command's record."""
    schema = InputSchema(kind="prompts", options=OPTIONS)
    names = [name for name, _ in works(tiny_clip)[command].columns(schema)]
    assert (find_job(command).schema_version, " ".join(names)) == (version, COLUMNS[command, version])
