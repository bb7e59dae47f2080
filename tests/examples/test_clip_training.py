from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from examples.emoji.build_dataset import write_full
from examples.emoji.clip_batches import BatchMaker
from examples.emoji.clip_loss import contrastive_loss
from examples.emoji.clip_pairs import read_pairs
from examples.emoji.clip_tokenizer import EOS_ID, PAD_ID, token_ids
from examples.emoji.clip_trainer import ClipRecipe, ClipTrainer, Pool
from examples.emoji.glyphs import GlyphSet
from examples.emoji.reconstructions import kept_in
from examples.emoji.spoilt_codes import spoil
from examples.emoji.train_clip import MAX_TEXT_LENGTH, clip_config, learn_from, save_clip
from examples.emoji.training_captions import clear_pairs
from examples.emoji.training_run import run, run_parser, save_checkpoint
from tests.examples.synthetic_glyphs import synthetic_glyphs
from tests.examples.synthetic_pairs import synthetic_pairs
from tests.support.tiny_clip import open_clip

PAIRS = synthetic_pairs()
TRAINED = np.flatnonzero(PAIRS.train)
RECIPE = ClipRecipe(steps=4, batch_size=16, spoilt=8, spoilt_versions=1, ramp_steps=1)
CLEAR = clear_pairs(synthetic_glyphs())
POOL = Pool(255 - PAIRS.originals, PAIRS.originals[TRAINED], np.full(len(TRAINED), 0.5, dtype=np.float32))
TOKENIZER = learn_from(PAIRS)
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def small_config() -> CLIPConfig:
    config = clip_config(TOKENIZER).to_dict()
    return CLIPConfig(
        text_config={**config["text_config"], **SMALL}, vision_config={**config["vision_config"], **SMALL}
    )


def trainer(steps: int = RECIPE.steps) -> ClipTrainer:
    return ClipTrainer(small_config(), replace(RECIPE, steps=steps), PAIRS, POOL, TOKENIZER, CLEAR)


def run_in(folder: Path, *length: str) -> Path:
    args = run_parser("train_clip", None, watch_every=3).parse_args(["--output", str(folder), *length])
    save_clip(run(trainer, args), folder / "model")
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("whole"), "--steps", str(RECIPE.steps))


def test_a_resumed_run_writes_the_bytes_of_one_that_was_never_stopped(whole_run: Path, tmp_path: Path) -> None:
    stopped = trainer()
    for _ in range(2):
        stopped.advance()
    save_checkpoint(stopped, tmp_path)
    run_in(tmp_path, "--minutes", "1")  # the length is that of the run that was stopped
    ours = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    theirs = {path.name: path.read_bytes() for path in (whole_run / "model").iterdir()}
    assert ours == theirs
    assert [json.loads(line)["step"] for line in (whole_run / "log.jsonl").read_text().splitlines()] == [3, 4]
    assert (tmp_path / "model" / "model.safetensors").stat().st_size > 10_000


def test_steps_change_the_weights_that_are_written(whole_run: Path, tmp_path: Path) -> None:
    save_clip(trainer(), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() != (whole_run / "model" / "model.safetensors").read_bytes()


def test_the_written_folder_is_what_transformers_and_open_clip_read(whole_run: Path) -> None:
    model, info = CLIPModel.from_pretrained(whole_run / "model", output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    text = "a red disc on a blue background"
    tokens = AutoTokenizer.from_pretrained(whole_run / "model")(text, return_tensors="pt")
    scorer = open_clip(whole_run / "model", batch_size=2)
    image = scorer.preprocess(PAIRS.originals[0])[None]
    with torch.inference_mode():
        output = model(input_ids=tokens["input_ids"], pixel_values=torch.from_numpy(image))
        expected = float(output.logits_per_image / model.logit_scale.exp())
    assert float(scorer.scores(image, [text])[0]) == pytest.approx(expected, abs=1e-6)


def test_training_shows_pixels_as_the_written_preprocessor_makes_them(whole_run: Path) -> None:
    batch = trainer().batch(0)
    scorer = open_clip(whole_run / "model", batch_size=2)
    made = np.stack([scorer.preprocess(image) for image in (*PAIRS.originals, *POOL.reconstructions)])
    assert len(batch.pixels) == RECIPE.batch_size + RECIPE.spoilt
    for shown in batch.pixels.numpy():
        assert np.abs(made - shown).max((1, 2, 3)).min() < 1e-6


def test_a_batch_has_only_pairs_of_the_training_split_each_thing_twice() -> None:
    maker = BatchMaker(PAIRS)
    for step in range(20):
        rows = maker.rows_of(np.random.default_rng(step), 32, alike=step % 2 == 0)
        assert len(rows) == 32
        assert PAIRS.train[rows].all()
        assert (np.bincount(PAIRS.thing[rows]) % 2 == 0).all()


def test_the_glyphs_of_an_alike_batch_stand_on_two_backgrounds_where_training_has_them() -> None:
    for step in range(20):
        rows = BatchMaker(PAIRS).rows_of(np.random.default_rng(step), 32, alike=True)
        backgrounds = np.bincount(PAIRS.background[rows], minlength=10)
        asked = np.argsort(backgrounds)[-2:]
        for row in rows[~np.isin(PAIRS.background[rows], asked)]:
            same = TRAINED[PAIRS.thing[TRAINED] == PAIRS.thing[row]]
            assert not np.isin(asked, PAIRS.background[same]).all()


def test_a_token_row_keeps_its_end_mark_and_is_padded_behind_it() -> None:
    ids = token_ids(TOKENIZER, ["A  RED disc", "a red disc " * 30], MAX_TEXT_LENGTH)
    assert ids.shape == (2, MAX_TEXT_LENGTH)
    end = ids[0].tolist().index(EOS_ID)
    assert (ids[0, end + 1 :] == PAD_ID).all()
    assert ids[1, -1] == EOS_ID
    assert ids[0, :end].tolist() == token_ids(TOKENIZER, ["a red disc"], MAX_TEXT_LENGTH)[0, :end].tolist()


def loss(logits: list[list[float]], things: list[int], named: list[bool], kept: list[float]) -> tuple[float, float]:
    backgrounds = torch.arange(len(things))
    values = torch.tensor(logits), torch.tensor(things), backgrounds, torch.tensor(named), torch.tensor(kept)
    to_images, to_captions = contrastive_loss(*values)
    return float(to_images), float(to_captions)


def test_a_caption_without_background_is_not_asked_to_tell_backgrounds_apart() -> None:
    logits = [[0.0, 3.0], [3.0, 0.0]]  # one thing on two backgrounds: each caption prefers the other's image
    assert loss(logits, [0, 0], [False, False], []) == (0.0, 0.0)
    assert min(loss(logits, [0, 0], [True, True], [])) > 3.0


def test_a_spoilt_image_counts_against_its_caption_unless_it_is_as_good() -> None:
    logits = [[0.0, 0.0, 3.0], [0.0, 9.0, 0.0]]  # the third image is a version of the first
    spoilt, _ = loss(logits, [0, 1], [True, True], [0.5])
    as_good, _ = loss(logits, [0, 1], [True, True], [1.0])
    assert spoilt > 1.4
    assert as_good < 0.4


def test_a_slightly_spoilt_image_still_belongs_to_its_caption() -> None:
    logits = [[9.0, 0.0, 0.0], [0.0, 9.0, 5.0]]  # the third is a version of the first, and looks like the second
    _, slightly = loss(logits, [0, 1], [True, True], [0.9])
    _, badly = loss(logits, [0, 1], [True, True], [0.5])
    assert slightly > 1.0
    assert badly < 0.01


def test_spoilt_codes_differ_as_much_as_they_say_and_come_from_training_images() -> None:
    rows = np.flatnonzero(~PAIRS.train).repeat(20)
    codes, kept = spoil(PAIRS, rows, np.random.default_rng(0))
    same = codes == PAIRS.codes[rows]
    np.testing.assert_allclose(same.mean(1), kept)
    assert kept.max() < 1
    assert kept.min() > 0.2
    for position in range(codes.shape[1]):
        strange = codes[~same[:, position], position]
        assert np.isin(strange, PAIRS.codes[TRAINED, position]).all()


def test_decoded_images_are_made_once(tmp_path: Path) -> None:
    first = kept_in(tmp_path / "kept.npy", lambda: np.arange(6).reshape(2, 3))
    again = kept_in(tmp_path / "kept.npy", lambda: pytest.fail("made again"))
    assert first.tolist() == again.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert isinstance(again, np.memmap)


def build(glyphs: GlyphSet, folder: Path) -> Path:
    """The set as build_dataset writes it, and codes for it in another order, as encode might."""
    write_full(glyphs, folder, per_shard=32)
    keys = pq.read_table(folder / "parquet", columns=["key"])["key"].to_pylist()[::-1]
    codes = pa.FixedSizeListArray.from_arrays(pa.array(range(len(keys) * 4), pa.uint16()), 4)
    (folder / "tokens").mkdir()
    pq.write_table(pa.table({"key": keys, "encoding": codes}), folder / "tokens" / "00000.parquet")
    return folder


def test_images_are_joined_with_their_codes_by_key(tmp_path: Path) -> None:
    built = build(synthetic_glyphs(), tmp_path)
    pairs = read_pairs(built / "parquet", built / "tokens")
    assert np.array_equal(pairs.originals, PAIRS.originals)
    assert pairs.things == PAIRS.things
    assert np.array_equal(pairs.train, PAIRS.train)
    assert np.array_equal(pairs.background, PAIRS.background)
    assert pairs.codes[-1].tolist() == [0, 1, 2, 3]
    assert pairs.codes[0].tolist() == [236, 237, 238, 239]


def test_an_image_without_codes_is_named(tmp_path: Path) -> None:
    built = build(synthetic_glyphs(), tmp_path)
    path = built / "tokens" / "00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(ValueError, match=f"no codes for 1 images of .*{table['key'][0].as_py()}"):
        read_pairs(built / "parquet", built / "tokens")


def test_glyphs_of_one_name_are_one_thing(tmp_path: Path) -> None:
    glyphs = synthetic_glyphs()
    built = build(replace(glyphs, names=["disc", "disc", "pear", "disc", "pear", "olive"]), tmp_path)
    pairs = read_pairs(built / "parquet", built / "tokens")
    assert pairs.things == ["a disc", "a pear", "an olive"]
    assert np.bincount(pairs.thing).tolist() == [30, 20, 10]
