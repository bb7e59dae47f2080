from __future__ import annotations

import json
import logging
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.bart.config import DalleBartConfig
from models.bart.request import blank_caption
from models.bart.text import open_text_encoder
from models.errors import CheckpointError
from tests.support.paths import GOLDEN

TEXT = GOLDEN / "text"
SMALL = DalleBartConfig(encoder_vocab_size=300, max_text_length=16)
NORMALISING = DalleBartConfig(encoder_vocab_size=300, max_text_length=16, normalize_text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint's folder with every file of the tokenizer, and the word list."""
    shutil.copytree(TEXT / "tokenizer_small", tmp_path / "model")
    shutil.copy(TEXT / "hashtag_words.txt", tmp_path / "model" / "enwiki-words-frequency.txt")
    return tmp_path / "model"


@pytest.mark.parametrize("absent", [(), ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")])
def test_ids_and_masks_are_those_of_the_reference(folder: Path, absent: tuple[str, ...]) -> None:
    for name in absent:
        (folder / name).unlink()
    lines = (TEXT / "tokenizer_small_expected.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for length in (16, 64):
        chosen = [row for row in rows if row["max_length"] == length]
        config = DalleBartConfig(encoder_vocab_size=300, max_text_length=length)
        encoded = open_text_encoder(folder, config).encode([row["text"] for row in chosen], [""] * len(chosen))
        assert encoded.input_ids.dtype == encoded.attention_mask.dtype == np.int32
        assert len(chosen) > 60
        assert encoded.input_ids.tolist() == [row["input_ids"] for row in chosen]
        assert encoded.attention_mask.tolist() == [row["attention_mask"] for row in chosen]


def test_both_forms_of_a_tokenizer_read_special_pieces_in_a_prompt_alike(folder: Path) -> None:
    prompts = ["a <mask>b <s> x", "<pad></s>", "é\u0000 \t  x"]
    whole = open_text_encoder(folder, SMALL).encode(prompts, prompts)
    (folder / "tokenizer.json").unlink()
    parts = open_text_encoder(folder, SMALL).encode(prompts, prompts)
    assert np.array_equal(whole.input_ids, parts.input_ids)
    assert whole.input_ids[0].tolist()[:8] == [0, 69, 4, 70, 225, 0, 225, 92]


def test_only_a_model_that_wants_it_has_its_prompts_normalised(folder: Path) -> None:
    plain = open_text_encoder(folder, SMALL).encode(["#NewYork!", " new york"], ["a", "b"])
    normal = open_text_encoder(folder, NORMALISING).encode(["#NewYork!"], ["a"])
    assert normal.input_ids[0].tolist() == plain.input_ids[1].tolist() != plain.input_ids[0].tolist()


def test_a_model_without_a_word_list_keeps_hashtags_whole_and_warns(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "enwiki-words-frequency.txt").unlink()
    with caplog.at_level(logging.WARNING, logger="vqbeam"):
        encoder = open_text_encoder(folder, NORMALISING)
        ids = encoder.encode(["#newyork", "newyork", "#sky"], ["a", "b", "c"]).input_ids
    assert np.array_equal(ids[0], ids[1])
    assert len(caplog.records) == 1


def test_a_prompt_is_truncated_with_its_end_kept_and_marked(folder: Path) -> None:
    fits, long = "a" * 14, "a" * 15  # each letter is a piece
    encoded = open_text_encoder(folder, SMALL).encode([fits, long, "b"], ["x", "y", "z"])
    assert encoded.truncated.tolist() == [False, True, False]
    assert encoded.input_ids[0].tolist() == encoded.input_ids[1].tolist() == [0, *[69] * 14, 2]
    assert encoded.attention_mask.sum(1).tolist() == [16, 16, 3]


@pytest.mark.parametrize("config", [SMALL, NORMALISING])
@pytest.mark.parametrize("prompt", ["", "   ", "\t\r\n", "\x00\x1f", "\u200b\ufeff", "\u3000\xa0"])
def test_blank_prompts_are_empty(folder: Path, config: DalleBartConfig, prompt: str) -> None:
    encoded = open_text_encoder(folder, config).encode([prompt, "a cat"], ["x", "y"])
    assert encoded.empty.tolist() == [True, False]


@pytest.mark.parametrize("prompt", ["???", "...", "<b>", "http://a.b/c", "[1]", "#"])
def test_prompts_that_normalise_to_nothing_are_empty(folder: Path, prompt: str) -> None:
    assert open_text_encoder(folder, NORMALISING).encode([prompt], ["x"]).empty.tolist() == [True]
    assert open_text_encoder(folder, SMALL).encode([prompt], ["x"]).empty.tolist() == [False]


@pytest.mark.parametrize("config", [SMALL, NORMALISING])
def test_awkward_characters_stop_no_batch(folder: Path, config: DalleBartConfig) -> None:
    prompts = ["\ud83d", "a\ude00\ud83d b", "\x00\x1b[31m x", "\U0010ffff\ufdd0 y", "a\u202eb", "\U0001d4ec 🐈"]
    encoded = open_text_encoder(folder, config).encode(prompts, ["\ud800"] * len(prompts))
    assert encoded.input_ids.shape == (6, 16)
    assert (encoded.input_ids[:, 0] == 0).all()
    assert (encoded.input_ids < 300).all()


@pytest.mark.parametrize("config", [SMALL, NORMALISING])
@pytest.mark.parametrize("unit", ["a photo of a cat ", "a"])
def test_a_prompt_of_a_megabyte_is_encoded_in_seconds(folder: Path, config: DalleBartConfig, unit: str) -> None:
    encoder = open_text_encoder(folder, config)
    begun = time.process_time()
    encoded = encoder.encode([unit * (1_000_000 // len(unit.encode()))], ["x"])
    assert time.process_time() - begun < 6
    assert encoded.truncated.tolist() == [unit == "a photo of a cat " or config is SMALL]


def test_no_prompts_make_an_empty_batch(folder: Path) -> None:
    assert open_text_encoder(folder, SMALL).encode([], []).input_ids.shape == (0, 16)


def test_a_prompt_without_a_key_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        open_text_encoder(folder, SMALL).encode(["a", "b"], ["x"])


def test_an_encoder_works_after_pickling_and_in_many_threads(folder: Path) -> None:
    encoder = open_text_encoder(folder, NORMALISING)
    copy = pickle.loads(pickle.dumps(encoder))
    prompts = [f"<person> and {number} cats #newyork" for number in range(40)]
    expected = encoder.encode(prompts, prompts).input_ids
    assert np.array_equal(copy.encode(prompts, prompts).input_ids, expected)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda prompt: encoder.encode([prompt], [prompt]).input_ids[0], prompts))
    assert np.array_equal(np.stack(alone), expected)


def test_the_unconditional_input_is_that_of_no_text(folder: Path) -> None:
    (input_ids,), (mask,) = blank_caption(16)
    encoded = open_text_encoder(folder, SMALL).encode([""], [""])
    assert input_ids.tolist() == encoded.input_ids[0].tolist() == [0, 2] + [1] * 14
    assert mask.tolist() == encoded.attention_mask[0].tolist() == [1, 1] + [0] * 14


def test_files_of_other_names_are_read_from_their_given_paths(folder: Path) -> None:
    expected = open_text_encoder(folder, SMALL).encode(["a cat"], ["x"]).input_ids
    files = {name: folder / name.replace(".", "_mini.") for name in ("vocab.json", "merges.txt")}
    for name, path in files.items():
        (folder / name).rename(path)
    (folder / "tokenizer.json").unlink()
    assert np.array_equal(open_text_encoder(folder, SMALL, files).encode(["a cat"], ["x"]).input_ids, expected)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (
            ["tokenizer.json", "vocab.json", "merges.txt"],
            r"no tokenizer here\. Expected tokenizer\.json, or vocab\.json",
        ),
        (["tokenizer.json", "merges.txt"], r"no tokenizer here, but no merges\.txt"),
        (["tokenizer.json", "vocab.json"], r"no tokenizer here, but no vocab\.json"),
    ],
)
def test_a_missing_tokenizer_is_an_error_that_names_the_folder_and_the_files(
    folder: Path, absent: list[str], said: str
) -> None:
    for name in absent:
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=said) as raised:
        open_text_encoder(folder, SMALL)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", ""),
        ("tokenizer.json", "cut"),
        ("vocab.json", "[1, 2]"),
        ("vocab.json", '{"<s>": 0, "<pad>": 1, "</s>": 2}'),
        ("merges.txt", "not a merge of two\n"),
    ],
)
def test_a_broken_tokenizer_is_an_error_that_names_its_file(folder: Path, name: str, content: str) -> None:
    if name != "tokenizer.json":
        (folder / "tokenizer.json").unlink()
    text = (folder / name).read_text(encoding="utf-8") if content == "cut" else content
    (folder / name).write_text(text[: len(text) // 2] if content == "cut" else text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        open_text_encoder(folder, SMALL)


def test_a_vocabulary_larger_than_that_of_the_model_is_refused(folder: Path) -> None:
    config = DalleBartConfig(encoder_vocab_size=299, max_text_length=16)
    with pytest.raises(CheckpointError, match=r"up to 299.*only 299"):
        open_text_encoder(folder, config)


def test_a_mask_past_the_table_of_the_model_is_never_fed_to_it(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    mask = {"id": 300, "content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False}
    values["model"]["vocab"]["<mask>"] = 300
    values["added_tokens"] = [{**mask, "normalized": True, "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    assert open_text_encoder(folder, SMALL).encode(["a <mask> b"], ["x"]).input_ids.max() < 300


def test_a_tokenizer_of_another_family_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    vocabulary["<pad>"], vocabulary["</s>"] = 2, 1
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"ids \[0, 2, 1\].*another model"):
        open_text_encoder(folder, SMALL)


def test_a_model_with_no_room_for_text_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="max_text_length 1"):
        open_text_encoder(folder, DalleBartConfig(encoder_vocab_size=300, max_text_length=1))
