"""What a GPU computes, beside the references and the CPU; skipped without one."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.bart.checkpoint import open_bart
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.bart.options import read_generation_defaults
from models.bart.request import TokenRequest
from models.devices import set_torch_state
from models.find import find
from models.uniforms import uniforms
from models.vqgan.codec import TorchCodec
from tests.support.bart_checkpoints import GOLDEN_BART, golden_bart, sampling
from tests.support.paths import ROOT
from tests.support.vqgan_checkpoints import GOLDEN_VQGAN, golden, load_vqgan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = "cuda"
STEPS, CODES = 16, 64
PROMPTS = ROOT / "examples" / "emoji" / "prompts.txt"


@pytest.fixture(scope="module")
def bart() -> DalleBart:
    return open_bart(GOLDEN_BART).load()


def request(images: int, guidance: float, top_k: int) -> TokenRequest:
    ids, mask = golden_bart("input_ids").numpy(), golden_bart("attention_mask").numpy()
    drawn = [[uniforms(0, str(row), image, STEPS) for image in range(images)] for row in range(len(ids))]
    return TokenRequest(ids, mask, np.array(drawn), sampling(len(ids), guidance, top_k))


def generator(bart: DalleBart, images: int = 1, device: str = GPU, dtype: str = "float32") -> TokenGenerator:
    return TokenGenerator(
        bart, codebook_size=CODES, prompts_per_batch=4, images_per_prompt=images, device=device, dtype=dtype
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_codes_and_images_equal_the_reference(compiled: bool) -> None:
    codec = TorchCodec(
        load_vqgan(GOLDEN_VQGAN), name="golden", device=GPU, dtype="float32", batch_size=4, compiled=compiled
    )
    pixels = torch.from_numpy(golden("inputs")).to(GPU).permute(0, 3, 1, 2)
    set_torch_state(codec.device, 1)  # as each of the codec's calls does: torch's own default is TF32
    with torch.inference_mode():
        latents = codec.model.latents(pixels)
        vectors = codec.model.embed(torch.from_numpy(golden("random_tokens")).long().to(GPU))
        images = codec.model.reconstruct(vectors).permute(0, 2, 3, 1)
        np.testing.assert_array_equal(codec.model.codes(latents).cpu().numpy(), golden("expected_tokens"))
    np.testing.assert_allclose(latents.cpu().numpy(), golden("expected_latents"), atol=5e-4, rtol=0)
    np.testing.assert_allclose(images.cpu().numpy(), golden("expected_random_recon"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1, 10])
def test_greedy_codes_are_those_of_the_reference(scale: int, bart: DalleBart) -> None:
    found = generator(bart).generate(request(1, scale, 1))
    assert np.array_equal(found[:, 0], golden_bart(f"expected_greedy_codebook_only_scale{scale}").numpy()[:, 1:])


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_recorded_steps_draw_what_single_ones_do(dtype: str, bart: DalleBart) -> None:
    asked = request(2, 3, 20)
    single = generator(bart, images=2, dtype=dtype)
    single._records = False
    single._advance = lambda position, search: single._step(STEPS, search)  # type: ignore[method-assign]
    recorded = generator(bart, images=2, dtype=dtype)
    expected = single.generate(asked)
    for _ in range(2):
        assert np.array_equal(recorded.generate(asked), expected)


def test_sampled_codes_are_those_of_a_cpu(bart: DalleBart) -> None:
    asked = request(2, 3, 20)
    on_gpu, on_cpu = (generator(bart, images=2, device=device).generate(asked) for device in (GPU, "cpu"))
    assert np.mean(on_gpu == on_cpu) > 0.95


def test_generators_in_several_threads_draw_the_same_codes(bart: DalleBart) -> None:
    asked = request(2, 3, 20)
    expected = generator(bart, images=2).generate(asked)
    found: list[np.ndarray] = []

    def draw() -> None:
        own = generator(bart, images=2)
        found.extend(own.generate(asked) for _ in range(3))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 9
    assert all(np.array_equal(codes, expected) for codes in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_image_depends_on_itself_alone(dtype: str) -> None:
    tokenizer = find("emoji", "").tokenizer.load(device=GPU, dtype=dtype, batch_size=8)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    codes = tokenizer.encode(images)
    pixels = tokenizer.decode(codes)
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [3], [5, 5, 0]):
        np.testing.assert_array_equal(tokenizer.encode(images[order]), codes[order])
        np.testing.assert_array_equal(tokenizer.decode(codes[order]), pixels[order])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_prompt_depends_on_itself_alone(dtype: str) -> None:
    checkpoint = find("emoji", "").bart
    texts = PROMPTS.read_text(encoding="utf-8").splitlines()[:8]
    running = TokenGenerator(
        checkpoint.load(), codebook_size=256, prompts_per_batch=8, images_per_prompt=1, device=GPU, dtype=dtype
    )
    encoded = checkpoint.text_encoder().encode(texts, texts)
    numbers = np.array([[uniforms(0, text, 0, running.length)] for text in texts])
    drawing = read_generation_defaults(checkpoint.path)
    options = {name: np.full(len(texts), drawing[name]) for name in ("guidance_scale", "temperature", "top_k", "top_p")}
    whole = TokenRequest(encoded.input_ids, encoded.attention_mask, numbers, options)
    codes = running.generate(whole)
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [3], [5, 0]):
        part = replace(
            whole,
            input_ids=whole.input_ids[order],
            attention_mask=whole.attention_mask[order],
            uniforms=whole.uniforms[order],
            options={name: values[order] for name, values in options.items()},
        )
        np.testing.assert_array_equal(running.generate(part), codes[order])


def test_a_full_memory_gets_smaller_batches() -> None:
    """A part of the memory is this process's, so that a batch of it does not fit."""
    codec = TorchCodec(load_vqgan(GOLDEN_VQGAN), name="golden", device=GPU, batch_size=2048, compiled=False)
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    expected = codec.encode(images)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.012)
    try:
        np.testing.assert_array_equal(codec.encode(images), expected)
        assert codec._rows < 2048
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
