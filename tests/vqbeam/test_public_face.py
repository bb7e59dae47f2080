"""`import vqbeam`: what it offers, also in a project with its own folders `models` and `transforms`."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vqbeam
from pipelines.__main__ import main
from tests.support.paths import ROOT
from tests.test_docs import first_image

PROJECT = """
    import sys
    import models, transforms
    assert (models.MINE, transforms.MINE) == ("models", "transforms")
    import vqbeam
    import apache_beam as beam
    image = open("a.png", "rb").read()
    codes = vqbeam.load("emoji").encode([image])[0].tolist()
    with beam.Pipeline("FnApiRunner") as pipeline:
        encoded = pipeline | beam.Create([{"key": "a", "image": image}]) | vqbeam.EncodeImages("emoji")
        encoded.rows | beam.Map(lambda row: print("equal" if row["encoding"].tolist() == codes else "different"))
    from models import later
    assert later.MINE and sys.modules["models"] is models
    ours = [name for name in sys.modules if name.startswith(("models.", "transforms."))]
    assert ours == ["models.later"], ours
"""


def run_in_project(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    for name in ("models", "transforms"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    (folder / "models" / "later.py").write_text("MINE = True\n")
    (folder / "a.png").write_bytes(first_image())
    (folder / "program.py").write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_project_with_folders_of_our_names_uses_vqbeam(tmp_path: Path) -> None:
    done = run_in_project(tmp_path, PROJECT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["equal"]


def test_every_name_is_there_and_documented() -> None:
    for name in vqbeam.__all__:
        assert getattr(vqbeam, name).__doc__, name
    assert set(vqbeam.__all__) <= set(dir(vqbeam))
    with pytest.raises(AttributeError, match="EncodeNothing"):
        _ = vqbeam.EncodeNothing


def test_no_module_of_ours_is_imported_by_a_string_of_its_short_name() -> None:
    """Such an import would find a project's own folder."""
    short = re.compile(r"import_module\(\s*f?[\"'](models|transforms)\b")
    for package in ("models", "transforms"):
        for file in (ROOT / package).rglob("*.py"):
            assert not short.search(file.read_text()), f"{file}: use import_module('.name', __package__)"


def test_importing_vqbeam_brings_neither_torch_nor_beam() -> None:
    check = "import sys, vqbeam; print({'torch', 'apache_beam', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_loading_a_tokenizer_brings_no_beam() -> None:
    check = (
        "import sys, vqbeam; vqbeam.load('emoji'); vqbeam.load_generator('emoji'); print('apache_beam' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


THREADS = 2  # for both sides: without a number, `load` takes torch's, which other tests of this process may change


def run(*words: object) -> None:
    assert main([*map(str, words), "--threads_per_worker", str(THREADS)]) == 0


@pytest.fixture(scope="module")
def tokenizer() -> vqbeam.Tokenizer:
    return vqbeam.load("emoji", batch_size=4, threads=THREADS)


def test_codes_and_images_are_those_of_the_commands(tokenizer: vqbeam.Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, side in enumerate((64, 97, 200, 33, 70)):
        image = Image.open(io.BytesIO(first_image())).convert("RGB").resize((side, side + 10 * number))
        image.save(folder / f"{number}.png")
    run("encode", "--input", folder, "--output", tmp_path / "t", "--batch_size", 4)
    table = pq.read_table(tmp_path / "t" / "data")
    wanted = np.array(table["encoding"].to_pylist())
    files = [(folder / f"{number}.png").read_bytes() for number in range(5)]
    codes = tokenizer.encode(files)
    assert codes.dtype == np.int32
    assert np.array_equal(codes, wanted)
    opened = [Image.open(io.BytesIO(data)) for data in files]
    assert np.array_equal(tokenizer.encode(opened), wanted)
    assert np.array_equal(tokenizer.encode([np.asarray(image) for image in opened]), wanted)
    run("decode", "--input", tmp_path / "t" / "data" / "*.parquet", "--output", tmp_path / "d", "--batch_size", 4)
    paths = pq.read_table(tmp_path / "d" / "data")["image_path"].to_pylist()
    decoded = tokenizer.decode(codes.astype(np.uint16))
    assert (decoded.dtype, decoded.shape) == (np.uint8, (5, 64, 64, 3))
    for image, path in zip(decoded, paths, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / "d" / path)))


def test_one_image_instead_of_a_list_is_refused(tokenizer: vqbeam.Tokenizer) -> None:
    """An array would be read as one grey image a row."""
    image = Image.open(io.BytesIO(first_image())).convert("RGB")
    for one in (image, np.asarray(image), np.asarray(image.convert("L")), first_image(), "photo.png"):
        with pytest.raises(vqbeam.UsageError, match=r"encode takes a list of images, and this is one: give \[image\]"):
            tokenizer.encode(one)  # type: ignore[arg-type]
    assert tokenizer.encode(np.asarray(image)[None]).shape == (1, 64)  # type: ignore[arg-type]


def test_no_images_give_no_codes(tokenizer: vqbeam.Tokenizer) -> None:
    codes = tokenizer.encode([])
    assert codes.shape == (0, tokenizer.codes_per_image)
    assert tokenizer.decode(codes).shape == (0, 64, 64, 3)


def test_an_image_of_another_kind_is_named(tokenizer: vqbeam.Tokenizer) -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    for bad, found in (
        (good.astype(np.float32), "float32"),
        ("a.png", r"str.*open\(path, 'rb'\)"),
        (Path("a.png"), r"Path.*open\(path, 'rb'\)"),
        (np.zeros((8, 8, 4), np.uint8), r"8, 4\]"),
    ):
        with pytest.raises(vqbeam.UsageError, match=rf"image 1 is .*{found}"):
            tokenizer.encode([good, bad])
    with pytest.raises(vqbeam.RowRejected, match="not_an_image"):
        tokenizer.encode([b"no image at all"])
    with pytest.raises(ValueError, match="codes must be in"):
        tokenizer.decode(np.full((1, 64), 1024))


def test_an_open_image_is_left_as_it_is(tokenizer: vqbeam.Tokenizer, tmp_path: Path) -> None:
    Image.new("RGB", (900, 900), "red").save(tmp_path / "big.jpg")
    image = Image.open(tmp_path / "big.jpg")
    tokenizer.encode([image])
    assert image.size == (900, 900)


def test_the_generator_draws_the_images_of_the_command(tmp_path: Path) -> None:
    prompts = ["a red apple", "a rocket on a blue background", "a ghost"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    flags = ("--seed", 3, "--images_per_prompt", 2, "--batch_size", 4, "--key_from", "prompt")
    run("generate", "--input", tmp_path / "prompts.txt", "--output", tmp_path / "g", *flags)
    paths = pq.read_table(tmp_path / "g" / "data")["image_path"].to_pylist()
    wanted = np.stack([np.asarray(Image.open(tmp_path / "g" / path)) for path in paths])
    generator = vqbeam.load_generator("emoji", batch_size=4, threads=THREADS)
    drawn = generator.generate(prompts, seed=3, images_per_prompt=2)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (6, 64, 64, 3))
    assert np.array_equal(drawn, wanted)
    assert np.array_equal(generator.generate(prompts[1:2], seed=3), wanted[2:3]), "a batch of another filling"
    assert not np.array_equal(generator.generate(prompts[1:2], seed=4), wanted[2:3])


def test_prompts_and_options_that_cannot_be_drawn_are_refused() -> None:
    generator = vqbeam.load_generator("emoji", batch_size=2)
    with pytest.raises(vqbeam.RowRejected, match="empty_prompt"):
        generator.generate(["a red apple", "  "])
    with pytest.raises(vqbeam.UsageError, match="temperature"):
        generator.generate(["a red apple"], temperature=0)
    with pytest.raises(vqbeam.UsageError, match="a list of prompts"):
        generator.generate("a red apple")
