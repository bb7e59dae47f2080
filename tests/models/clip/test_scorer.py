from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from models.clip.checkpoint import open_clip_checkpoint
from models.clip.scorer import ClipScorer, open_clip_texts
from models.errors import CheckpointError
from tests.support.paths import ROOT
from tests.support.tiny_clip import BOS, EOS, LENGTH, SIDE, open_clip, tiny_model, tiny_tokenizer, write_tiny_clip

TEXTS = ["a red apple", "a blue rocket", "a red apple", "a rocket on a red background a red apple a red apple", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_tiny_clip(folder)
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipScorer:
    return open_clip(folder, batch_size=4)


def random_images(count: int, scorer: ClipScorer) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 256, (count, 20, 24, 3), dtype=np.uint8)
    return np.stack([scorer.preprocess(pixels) for pixels in drawn])


def own_cosines(model: CLIPModel, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """The diagonal of CLIPModel's own logits, one pair at a time, nothing padded."""
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(LENGTH)
    found = []
    with torch.inference_mode():
        for image, text in zip(images, texts, strict=True):
            ids = torch.tensor([tokenizer.encode(text).ids])
            logits = model(input_ids=ids, pixel_values=torch.from_numpy(image)[None]).logits_per_image
            found.append(float(logits / model.logit_scale.exp()))
    return np.array(found)


@pytest.mark.parametrize("eos_token_id", [EOS, 2])  # 2: an old configuration, pooled at the highest id
def test_scores_are_the_logits_of_transformers_without_their_scale(eos_token_id: int, tmp_path: Path) -> None:
    model = write_tiny_clip(tmp_path, tiny_model(eos_token_id))
    scorer = open_clip(tmp_path, batch_size=4)
    images = random_images(len(TEXTS), scorer)
    expected = own_cosines(model, images, TEXTS)
    scores = scorer.scores(images, TEXTS)
    assert scores.dtype == np.float32
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_long_prompt_is_cut_and_keeps_its_end_mark(clip: ClipScorer) -> None:
    ids = clip._texts.encode(["apple " * 50, "a"])
    assert ids.shape == (2, LENGTH)
    assert ids[0, 0] == BOS
    assert ids[0, -1] == EOS
    assert EOS not in ids[0, :-1]
    assert ids[1].tolist() == [BOS, 0] + [EOS] * (LENGTH - 2)


def test_a_text_that_is_no_utf_8_is_scored(clip: ClipScorer) -> None:
    assert clip._texts.encode(["a \ud800 red apple"]).tolist() == clip._texts.encode(["a ? red apple"]).tolist()


def test_openais_tokenizer_is_read_from_its_vocabulary_and_merges(tmp_path: Path) -> None:
    pieces = ["a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    texts = open_clip_texts(tmp_path, length=6, vocabulary=7, eos_token_id=2)
    assert texts.encode(["AB a"]).tolist() == [[5, 4, 2, 6, 6, 6]]
    (tmp_path / "vocab.json").write_text("torn")
    with pytest.raises(CheckpointError, match=r"vocab\.json or .*merges\.txt: not a tokenizer"):
        open_clip_texts(tmp_path, length=6, vocabulary=7, eos_token_id=2)


def test_a_score_does_not_depend_on_its_neighbours(clip: ClipScorer) -> None:
    texts = [f"a {colour} {thing}" for colour in ("red", "blue") for thing in ("apple", "rocket", "background")] * 3
    images = random_images(len(texts), clip)
    together = clip.scores(images, texts)
    alone = [clip.scores(images[n : n + 1], texts[n : n + 1])[0] for n in range(len(texts))]
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = clip.scores(images[order], [texts[n] for n in order])
    assert together.tolist() == alone
    assert together[order].tolist() == shuffled.tolist()


def test_no_pairs_have_no_scores(clip: ClipScorer) -> None:
    assert clip.scores(np.zeros((0, 3, SIDE, SIDE), dtype=np.float32), []).shape == (0,)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, SIDE, SIDE), dtype=np.float32),
        np.zeros((2, 3, SIDE + 1, SIDE), dtype=np.float32),
        np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8),
    ],
)
def test_images_that_do_not_go_with_the_texts_are_refused(images: np.ndarray, clip: ClipScorer) -> None:
    with pytest.raises(ValueError, match="expected images float32"):
        clip.scores(images, ["a", "a"])


def test_a_pickle_of_the_same_weights_has_the_same_scores_and_fingerprint(folder: Path, tmp_path: Path) -> None:
    model = write_tiny_clip(tmp_path)
    state = {**model.state_dict(), "text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}  # as once stored
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    first, second = open_clip(folder, batch_size=4), open_clip(tmp_path, batch_size=4)
    images = random_images(3, first)
    assert first.scores(images, TEXTS[:3]).tolist() == second.scores(images, TEXTS[:3]).tolist()
    assert open_clip_checkpoint(folder).weights_id() == open_clip_checkpoint(tmp_path).weights_id()


def test_weights_can_be_read_before_transformers_is_imported(folder: Path) -> None:
    """Importing its CLIP on the device "meta", while the network is built, is more than torch 2.6 can do."""
    read = (
        "import sys; from models.clip.checkpoint import open_clip_checkpoint as open_; open_(sys.argv[1]).weights_id()"
    )
    subprocess.run([sys.executable, "-c", read, str(folder)], cwd=ROOT, check=True)


def test_half_precision_weights_are_computed_in_float32(tmp_path: Path) -> None:
    model = write_tiny_clip(tmp_path, tiny_model().half())
    scorer = open_clip(tmp_path, batch_size=4)
    images = random_images(2, scorer)
    np.testing.assert_allclose(
        scorer.scores(images, TEXTS[:2]), own_cosines(model.float(), images, TEXTS[:2]), atol=1e-6
    )


def change_config(folder: Path, part: str, **values: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[part].update(values)
    path.write_text(json.dumps(config))


def test_a_folder_without_a_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"no CLIP here .*'bert'"):
        open_clip(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        open_clip(tmp_path / "nowhere")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"there is no config\.json"):
        open_clip(tmp_path)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("tokenizer.json", r"no tokenizer here\. Expected tokenizer\.json"),
        ("preprocessor_config.json", r"no preprocessor_config\.json beside it"),
        ("model.safetensors", "the CLIP has no weights"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(removed: str, message: str, tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    (tmp_path / removed).unlink()
    with pytest.raises(CheckpointError, match=message):
        open_clip(tmp_path)


def test_weights_of_other_shapes_are_refused_by_their_names(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    change_config(tmp_path, "vision_config", patch_size=4)
    with pytest.raises(CheckpointError, match=r"misshapen: vision_model\.embeddings\.p.* is \[16, 3, 8, 8\], not"):
        open_clip(tmp_path)


def test_torn_weights_are_refused(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut short"):
        open_clip(tmp_path)


def test_weights_that_are_no_numbers_are_found_when_they_score(tmp_path: Path) -> None:
    model = tiny_model()
    model.visual_projection.weight.data.fill_(torch.nan)
    write_tiny_clip(tmp_path, model)
    scorer = open_clip(tmp_path, batch_size=4)
    with pytest.raises(CheckpointError, match="no numbers"):
        scorer.scores(random_images(1, scorer), ["a"])


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        open_clip(tmp_path)


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    change_config(tmp_path, "text_config", eos_token_id=4)
    with pytest.raises(CheckpointError, match=f"ends a text with {EOS}, the model reads it at token 4"):
        open_clip(tmp_path)
    change_config(tmp_path, "text_config", vocab_size=5)
    with pytest.raises(CheckpointError, match=f"ids up to {EOS}, the model a vocabulary of 5"):
        open_clip(tmp_path)


@pytest.mark.parametrize("value", ["wide", -3, None])
def test_a_configuration_that_makes_no_sense_is_refused(value: object, tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    change_config(tmp_path, "text_config", hidden_size=value)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        open_clip(tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "vocab_size", 10**18),
        ("vision_config", "patch_size", 0),
        ("vision_config", "hidden_act", "nonsense"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused_by_name(
    part: str, name: str, value: object, tmp_path: Path
) -> None:
    write_tiny_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[part][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config\.json: not the configuration of a CLIP \({name} "):
        open_clip_checkpoint(tmp_path)
