from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from models.errors import ConfigError
from models.vqgan.checkpoint import open_checkpoint, save_vqgan
from models.vqgan.codec import TorchCodec
from models.vqgan.network import VQGAN
from tests.support.paths import EMOJI, ROOT
from tests.support.vqgan_checkpoints import TINY, min_dalle_weights, random_vqgan


def random_images(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def codec(model: VQGAN | None = None, **settings: object) -> TorchCodec:
    return TorchCodec(model or random_vqgan(), name="tiny", device="cpu", **settings)


def test_codes_are_those_of_the_bare_model() -> None:
    images = random_images(4)
    codes = codec(batch_size=4).encode(images)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, random_vqgan().encode(torch.from_numpy(images)).numpy())


def test_images_are_those_of_the_bare_model() -> None:
    codes = np.random.default_rng(0).integers(0, 32, (4, 64)).astype(np.uint16)
    pixels = codec(batch_size=4).decode(codes)
    expected = random_vqgan().decode(torch.from_numpy(codes.astype(np.int64))).numpy()
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_neighbours_and_padding_change_nothing(dtype: str) -> None:
    running = codec(batch_size=5, dtype=dtype)
    images = random_images(5)
    codes = running.encode(images)
    pixels = running.decode(codes)
    for row in range(5):
        np.testing.assert_array_equal(running.encode(images[row : row + 1])[0], codes[row])
        np.testing.assert_array_equal(running.decode(codes[row : row + 1])[0], pixels[row])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_position_in_a_batch_of_whole_shares_changes_nothing(threads: int) -> None:
    """In images so large that torch cuts norms by pixels: each thread has as many images as the others."""
    running = codec(random_vqgan(replace(TINY, resolution=64)), batch_size=4, threads=threads)
    images = random_images(4, side=64)
    codes, latents = running.encode(images), running.latents(images)
    pixels = running.decode(codes)
    for order in ([1, 2, 3, 0], [3, 1, 1, 2]):
        np.testing.assert_array_equal(running.latents(images[order]), latents[order])
        np.testing.assert_array_equal(running.decode(codes[order]), pixels[order])


def test_the_network_always_sees_the_full_batch() -> None:
    model = random_vqgan()
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    running = codec(model, batch_size=4)
    for count in (4, 1, 3):
        running.encode(random_images(count))
    assert seen == [(4, 3, 16, 16)] * 3


def test_no_rows_give_no_rows() -> None:
    running = codec(batch_size=2)
    assert running.encode(random_images(0)).shape == (0, 64)
    assert running.decode(np.zeros((0, 64), np.int32)).shape == (0, 16, 16, 3)


def test_the_quantiser_stays_float32_in_half_precision() -> None:
    running = codec(batch_size=1, dtype="bfloat16")
    assert running.model.encoder.conv_in.weight.dtype == torch.bfloat16
    assert running.model.quant_conv.weight.dtype == torch.float32
    assert running.model.quantize.codebook.dtype == torch.float32


def test_results_of_one_call_outlive_the_next() -> None:
    running = codec(batch_size=2)
    images = random_images(4)
    first = running.encode(images[:2])
    kept = first.copy()
    running.encode(images[2:])
    np.testing.assert_array_equal(first, kept)


def test_threads_get_the_codes_of_their_own_images() -> None:
    running = codec(batch_size=2, threads=1)
    images = random_images(16)
    expected = np.concatenate([running.encode(images[i : i + 2]) for i in range(0, 16, 2)])
    found = np.zeros_like(expected)

    def work(start: int) -> None:
        found[start : start + 2] = running.encode(images[start : start + 2])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 16, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)


def test_the_number_of_threads_holds_in_every_calling_thread() -> None:
    model = random_vqgan()
    seen = []
    model.encoder.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    running = codec(model, batch_size=1, threads=3)
    try:
        thread = threading.Thread(target=running.encode, args=(random_images(1),))
        thread.start()
        thread.join()
        running.encode(random_images(1))
    finally:
        torch.set_num_threads(before)
    assert seen == [3, 3]


def limit_memory(model: VQGAN, rows: int) -> list[int]:
    """Makes the encoder run out of memory above so many rows; the list grows by the rows of each call."""
    calls: list[int] = []

    def check(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append(len(inputs[0]))
        if len(inputs[0]) > rows:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model.encoder.register_forward_pre_hook(check)
    return calls


def test_out_of_memory_halves_the_batch_for_good_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = random_vqgan()
    calls = limit_memory(model, rows=2)
    running = codec(model, batch_size=7)
    images = random_images(7)
    with caplog.at_level(logging.WARNING):
        codes = running.encode(images)
    np.testing.assert_array_equal(codes, random_vqgan().encode(torch.from_numpy(images)).numpy())
    assert calls == [7, 4, 2, 2, 2, 2]
    assert "out of memory: going on with 2 rows at a time" in caplog.text
    running.encode(images[:3])
    assert calls[6:] == [2, 2]
    assert running.batch_size == 7


def test_one_image_too_many_for_the_memory_is_an_error() -> None:
    model = random_vqgan()
    limit_memory(model, rows=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        codec(model, batch_size=4).encode(random_images(2))


def test_without_a_compiler_the_network_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compile_nothing(*_: object, **__: object) -> object:
        def fail(*_: object, **__: object) -> None:
            raise TorchDynamoException("no C compiler found")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    running = codec(batch_size=2, compiled=True)
    images = random_images(2)
    with caplog.at_level(logging.WARNING):
        codes = running.encode(images)
    np.testing.assert_array_equal(codes, codec(batch_size=2).encode(images))
    assert "no C compiler found" in caplog.text


def test_the_compiler_is_not_imported_if_nothing_is_compiled() -> None:
    check = (
        "import sys; from models.vqgan.checkpoint import open_checkpoint\n"
        "open_checkpoint('models/emoji').load(device='cpu')\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 16), np.uint8), r"must be \[n, H, W, 3\]"),
        (np.zeros((1, 16, 15, 3), np.uint8), "multiples of 2"),
        (np.zeros((1, 16, 16, 3), np.float32), "must be uint8"),
        (np.zeros((3, 16, 16, 3), np.uint8), "more than the batch size of 2"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec(batch_size=2).encode(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 63), np.int64), r"must be integers \[n, 64\]"),
        (np.zeros((1, 64), np.float32), "not float32"),
        (np.full((1, 64), 32), r"in \[0, 32\), not in \[32, 32\]"),
        (np.full((1, 64), -1), r"not in \[-1, -1\]"),
        (np.zeros((3, 64), np.int64), "more than the batch size of 2"),
    ],
)
def test_codes_of_the_wrong_kind_are_refused(codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec(batch_size=2).decode(codes)


def test_a_codec_is_opened_from_a_folder_with_its_provenance(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="tiny")
    opened = open_checkpoint(tmp_path).load(device="cpu", dtype="float32", batch_size=3, threads=1)
    assert (opened.batch_size, opened.spec) == (3, TINY.spec(name="tiny"))
    images = random_images(3)
    np.testing.assert_array_equal(opened.encode(images), codec(batch_size=3, threads=1).encode(images))


def test_a_decoder_alone_decodes_and_refuses_to_encode(tmp_path: Path) -> None:
    torch.save(min_dalle_weights(dict(random_vqgan().state_dict())), tmp_path / "detoker.pt")
    opened = open_checkpoint(tmp_path).load(device="cpu", batch_size=1)
    assert opened.decode(np.zeros((1, 64 * 4), np.int32)).shape == (1, 32, 32, 3)
    with pytest.raises(ConfigError, match="min-dalle holds a decoder only"):
        opened.encode(random_images(1))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected torch or vqgan-jax"):
        open_checkpoint(EMOJI).load(backend="tensorflow")


def test_latents_quantised_are_the_codes_of_the_image() -> None:
    model = codec(batch_size=4)
    latents = model.latents(random_images(3))
    assert (latents.dtype, latents.shape) == (np.float32, (3, 8, 8, 4))
    np.testing.assert_array_equal(model.quantise(latents), model.encode(random_images(3)))


def test_code_vectors_quantised_are_their_codes() -> None:
    model = codec(batch_size=2)
    codes = np.random.default_rng(0).integers(0, 32, (2, 64))
    assert model.codebook.shape == (32, 4)
    np.testing.assert_array_equal(model.quantise(model.codebook[codes].reshape(2, 8, 8, 4)), codes)
