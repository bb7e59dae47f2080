from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.vqgan.codec import TorchCodec
from models.vqgan.variations import spread
from tests.support.vqgan_checkpoints import random_vqgan
from transforms.batch import CODES, PIXELS, ROW, SAMPLE, fixed_lists
from transforms.work.vary import CodeNoise, LatentNoise

SIDE, LENGTH = 16, 64
IMAGES = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
TOKENS = np.random.default_rng(2).integers(0, 32, (4, LENGTH), dtype=np.int32)


class Watched(TorchCodec):
    """Keeps what it is asked to quantise, and counts the images that it reads."""

    quantised: np.ndarray
    read = 0

    def latents(self, images: np.ndarray) -> np.ndarray:
        self.read += len(images)
        return super().latents(images)

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.read += len(images)
        return super().encode(images)

    def quantise(self, latents: np.ndarray) -> np.ndarray:
        self.quantised = latents
        return super().quantise(latents)


@pytest.fixture
def tokenizer() -> Watched:
    return Watched(random_vqgan(), name="tiny", device="cpu", batch_size=4)


def batch(payload: np.ndarray, rows: list[int], samples: list[int]) -> pa.RecordBatch:
    """Images of the `rows` of `payload`, numbered by `samples`."""
    columns = {
        "key": pa.array([f"k{row}" for row in rows]),
        "seed": pa.array([5] * len(rows), pa.int64()),
        ROW: pa.array(rows, pa.int64()),
        SAMPLE: pa.array(samples, pa.int32()),
        PIXELS if payload is IMAGES else CODES: fixed_lists(payload[rows]),
    }
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize("payload", [IMAGES, TOKENS], ids=["images", "codes"])
def test_the_noise_on_latents_is_the_share_of_the_codebooks_spread(tokenizer: Watched, payload: np.ndarray) -> None:
    LatentNoise(0.4).open(tokenizer)(batch(payload, [0, 1, 2, 3], [0, 0, 0, 0]))
    clean = tokenizer.latents(IMAGES) if payload is IMAGES else tokenizer.codebook[TOKENS].reshape(4, 8, 8, -1)
    noise = (tokenizer.quantised - clean) / (0.4 * spread(tokenizer.codebook))
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("payload", [IMAGES, TOKENS], ids=["images", "codes"])
@pytest.mark.parametrize("method", [LatentNoise, CodeNoise])
def test_a_variation_depends_on_its_own_row_only(
    tokenizer: Watched, method: type[LatentNoise] | type[CodeNoise], payload: np.ndarray
) -> None:
    vary = method(0.5).open(tokenizer)
    together = vary(batch(payload, [0, 0, 1, 3], [0, 1, 0, 2]))
    alone = [vary(batch(payload, [row], [sample])) for row, sample in ((0, 0), (0, 1), (1, 0), (3, 2))]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert (together[0] != together[1]).any()


def test_stronger_noise_on_latents_changes_more_codes(tokenizer: Watched) -> None:
    given = tokenizer.encode(IMAGES)
    rows = batch(IMAGES, [0, 1, 2, 3], [0, 0, 0, 0])
    shares = [np.mean(LatentNoise(s).open(tokenizer)(rows) != given) for s in (0, 0.1, 0.25, 0.5, 1)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


@pytest.mark.parametrize("method", [LatentNoise, CodeNoise])
def test_an_image_is_read_once_for_all_its_variations_in_a_batch(
    tokenizer: Watched, method: type[LatentNoise] | type[CodeNoise]
) -> None:
    method(0.5).open(tokenizer)(batch(IMAGES, [2, 2, 2, 3], [0, 1, 2, 0]))
    assert tokenizer.read == 2


def test_codes_that_share_a_vector_stay_as_they_came_at_strength_0(tokenizer: Watched) -> None:
    tokenizer.model.quantize.codebook[1] = tokenizer.model.quantize.codebook[0]
    given = np.full((4, LENGTH), 1, np.int32)
    codes = LatentNoise(0.0).open(tokenizer)(batch(given, [0, 1, 2, 3], [0] * 4))
    np.testing.assert_array_equal(codes, given)
