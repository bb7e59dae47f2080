"""A class of a user's is a tokenizer, and says in one line what it lacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import find, own_class
from models.errors import ConfigError
from models.image_tokenizer import ImageTokenizer, TokenizerCheckpoint, TokenizerOptions
from tests.support.own_tokenizer import CODES, NAME, colours, expected_codes, write_colours, write_module

Open = Callable[..., TokenizerCheckpoint]
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the class of the page with some of its text changed."""
    monkeypatch.syspath_prepend(tmp_path)
    table = write_colours(tmp_path / "colours.txt")

    def open_changed(changes: dict[str, str] | None = None, name: str = NAME, **options: Any) -> TokenizerCheckpoint:
        sys.modules.pop("colours", None)
        write_module(tmp_path, **(changes or {}))
        return find(str(table), "", TokenizerOptions(tokenizer=name, **options)).tokenizer

    yield open_changed
    sys.modules.pop("colours", None)


def running(checkpoint: TokenizerCheckpoint) -> ImageTokenizer:
    return checkpoint.load(device="cpu", batch_size=4, threads=1)


def test_its_codes_images_and_codebook_are_those_of_the_class(opened: Open, tmp_path: Path) -> None:
    tokenizer = running(opened())
    codes = tokenizer.encode(IMAGES)
    np.testing.assert_array_equal(codes, expected_codes(tmp_path / "colours.txt", IMAGES))
    assert (codes.dtype, codes.shape) == (np.int32, (3, 64))
    rows = colours(tmp_path / "colours.txt")
    np.testing.assert_array_equal(tokenizer.codebook, rows)
    np.testing.assert_array_equal(tokenizer.decode(codes)[:, ::8, ::8].reshape(3, 64, 3), rows[codes])


def test_options_reach_the_class(opened: Open) -> None:
    large = opened(image_size=128)
    assert (large.spec.resolution, dict(large.choices)) == (128, {"tokenizer": NAME, "image_size": 128})
    assert running(large).encode(np.zeros((2, 128, 128, 3), np.uint8)).shape == (2, 256)
    with pytest.raises(ConfigError, match=r"its spec says \(0\.0, 1\.0\), not the pixel_range \(-1\.0, 1\.0\); leave"):
        opened(pixel_range=(-1.0, 1.0))
    with pytest.raises(ConfigError, match="its spec says 64, not the image_size 128; leave image_size out"):
        opened({"options.image_size or 64": "64"}, image_size=128)
    with pytest.raises(ConfigError, match="chooses its weights itself; leave weights out"):
        opened(weights="ema")


def test_numbers_of_numpy_become_plain_ones(opened: Open) -> None:
    spec = opened({"len(self.codebook)": "np.int64(216), pixel_range=[0, 1]"}, pixel_range=(0.0, 1.0)).spec
    assert (type(spec.codebook_size), spec.pixel_range) == (int, (0.0, 1.0))


def test_fingerprints_are_of_the_class_and_of_its_own(opened: Open, tmp_path: Path) -> None:
    first = opened()
    assert first.weights_id() == opened().weights_id() == first.codebook_id()
    write_module(tmp_path, "others")
    assert first.weights_id() != opened(name="others:Colours").weights_id()
    write_colours(tmp_path / "colours.txt", seed=2)
    assert first.weights_id() != opened().weights_id()


def test_an_entry_point_is_a_short_name(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = [EntryPoint("mine", NAME, own_class.GROUP)]
    monkeypatch.setattr(own_class, "entry_points", lambda group: registered if group == own_class.GROUP else [])
    assert opened(name="mine").weights_id() == opened().weights_id()
    assert opened(name="mine").choices == {"tokenizer": NAME}
    with pytest.raises(ConfigError, match=r"'mime': expected package\.module:Class, or an entry .*\(mine inst"):
        opened(name="mime")


def test_weights_are_loaded_once_on_the_device_asked_for(opened: Open) -> None:
    kept = "def load(self, device, dtype):\n        self.loaded = [*getattr(self, 'loaded', []), (device, dtype)]\n\n"
    checkpoint = opened({"    def fingerprint": f"    {kept}    def fingerprint"})
    tokenizer = running(checkpoint)
    tokenizer.encode(IMAGES)
    tokenizer.encode(IMAGES)
    assert checkpoint.tokenizer.loaded == [("cpu", "float32")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.at_all:Mine", r"cannot import nowhere\.at_all \(ModuleNotFoundError: .*in a folder of PYTHONPATH"),
        ("colours:Other", r"tokenizer colours:Other: colours has no class Other"),
        ("colours:np.pi", r"colours has no class np\.pi"),
        ("colours", r"tokenizer 'colours': expected package\.module:Class"),
    ],
)
def test_a_class_that_is_not_there_is_told(opened: Open, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(name=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"def decode": "def paint", "def fingerprint": "def print"}, r"lacks fingerprint\(\), decode\(\)$"),
        ({"self.codebook": "self.table"}, r"lacks codebook$"),
        ({"self.spec = TokenizerSpec": "self.spec = dict"}, r"its spec is no TokenizerSpec"),
        ({"factor=8": "factor=7"}, "its spec says images of 64 pixels a side, no multiple of the factor 7"),
        ({"factor=8": "factor=0"}, "its spec says factor 0; expected more than 0"),
        ({"factor=8": "factor='eight'"}, "its spec has a number that is none"),
        ({"factor=8": "factor=8, flops=0"}, "its spec says flops 0.0; expected more than 0"),
        ({"np.loadtxt(path,": "np.loadtxt(path.missing,"}, r"cannot open .*colours\.txt: AttributeError: .*missing"),
        ({"import hashlib": "import hashlib_\n"}, "cannot import colours .*hashlib_"),
    ],
)
def test_a_class_that_is_no_tokenizer_is_refused_before_any_image(
    opened: Open, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"tokenizer colours:Colours: {message}"):
        opened(changes)


def use(checkpoint: TokenizerCheckpoint) -> None:
    """Ask it for everything."""
    tokenizer = running(checkpoint)
    tokenizer.decode(tokenizer.encode(IMAGES))
    _ = tokenizer.codebook
    checkpoint.weights_id()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {".sum(-1).argmin(-1)": ".sum(-1).argmin(-1)[:, 1:]"},
            r"encode\(\) gave int64 \[4, 7, 8\]; expected integers",
        ),
        (
            {".argmin(-1)": ".min(-1)"},
            r"encode\(\) gave float64 \[4, 8, 8\]; expected integers \[4, 64\]",
        ),
        ({".argmin(-1)": f".argmin(-1) * 0 + {CODES}"}, r"encode\(\) gave codes from 216 to 216; the codebook has 216"),
        (
            {".repeat(8, 2)": ".repeat(4, 2)"},
            r"decode\(\) gave uint8 \[4, 64, 32, 3\]; expected uint8 \[4, 64, 64, 3\]",
        ),
        ({".astype(np.uint8)": ""}, r"decode\(\) gave float32 \[4, 64, 64, 3\]; expected uint8"),
        ({"len(self.codebook)": "600"}, r"codebook is float32 \[216, 3\]; expected numbers \[600, D\]"),
        ({"return hashlib": "return None and hashlib"}, r"fingerprint\(\) gave None; expected a text"),
    ],
)
def test_results_that_are_none_are_told(opened: Open, changes: dict[str, str], message: str) -> None:
    checkpoint = opened(changes)
    with pytest.raises(ConfigError, match=rf"tokenizer colours:Colours: {message}"):
        use(checkpoint)


def test_what_it_cannot_do_is_told(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads files of its own, which are not converted"):
        opened().convert(tmp_path / "own")
    with pytest.raises(ConfigError, match="backend vqgan-jax: tokenizer colours:Colours has one of its own"):
        opened().load(backend="vqgan-jax")
    with pytest.raises(ConfigError, match="name the file or folder that it opens as the model"):
        _ = find("emoji", "", TokenizerOptions(tokenizer=NAME)).tokenizer
