"""The compiled decoder gives the reference's logits, and the codes of the other decoder."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.bart import config
from models.bart.checkpoint import open_bart
from models.bart.compiled import decoder as compiled
from models.bart.compiled.decoder import CompiledDecoder
from models.bart.decoder import CachedDecoder
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.bart.request import TokenRequest
from models.errors import CheckpointError, ConfigError
from models.threads import Threads
from models.uniforms import uniforms
from tests.support.bart_checkpoints import (
    GOLDEN_BART,
    GOLDEN_MIN_DALLE,
    golden_bart,
    open_min_dalle,
    random_bart,
    sampling,
)

pytest.importorskip("numba")
from llvmlite import binding

from models.bart.compiled import panels, tiles

CODES, STEPS = 64, 16
CPU = torch.device("cpu")
needs_tiles = pytest.mark.skipif(not tiles.usable(), reason="no matrix unit for bfloat16 (Intel's AMX)")


@pytest.fixture(scope="module")
def model() -> DalleBart:
    return open_bart(GOLDEN_BART).load()


@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LEAST_COMPILED_BYTES", 0)


def _logits(model: DalleBart, rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher forcing of the first `rows` golden prompts: what is found and what is expected, [rows, T, vocabulary]."""
    ids, mask = golden_bart("input_ids")[:rows], golden_bart("attention_mask")[:rows]
    codes = golden_bart("decoder_input_ids")[:rows]
    decoder = CompiledDecoder(model.decoder, rows=rows, codebook_size=model.config.output_size, dtype=dtype)
    with torch.inference_mode():
        decoder.begin([(model.encode(ids, mask), mask)])
        found = [
            decoder.logits(decoder.step(codes[:, step], torch.tensor([step]), step + 1, exact=True)).clone()
            for step in range(codes.shape[1])
        ]
    return torch.stack(found, 1), golden_bart("expected_logits")[:rows]


def _draw(model: DalleBart, row: int, **options: object) -> np.ndarray:
    """The codes of one golden prompt, greedy unless `top_k` is given."""
    given = {"prompts_per_batch": 1, "images_per_prompt": 1, "dtype": "float32", "threads": 1, **options}
    top_k, guidance = int(str(given.pop("top_k", 1))), float(str(given.pop("guidance", 10)))
    images = int(str(given["images_per_prompt"]))
    generator = TokenGenerator(model, codebook_size=CODES, **given)  # type: ignore[arg-type]
    drawn = np.array([[uniforms(0, str(row), image, STEPS) for image in range(images)]])
    ids, mask = golden_bart("input_ids").numpy()[row : row + 1], golden_bart("attention_mask").numpy()[row : row + 1]
    return generator.generate(TokenRequest(ids, mask, drawn, sampling(1, guidance, top_k)))[0]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_logits_are_those_of_the_reference(model: DalleBart, rows: int) -> None:
    found, expected = _logits(model, rows)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [2, 4])
def test_bfloat16_moves_the_logits_a_little(rows: int, model: DalleBart) -> None:
    found, expected = _logits(model, rows, torch.bfloat16)
    assert 1e-4 < (found - expected).square().mean().sqrt() < 0.011 * expected.std()


@needs_tiles
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33, 50, 64, 65, 100])
def test_a_matrix_unit_multiplies_any_number_of_rows(rows: int) -> None:
    from models.bart.compiled.products import dense_alone

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(72, 96, generator=generator).bfloat16()  # outputs that are no whole tiles
    x = torch.zeros(-(-rows // tiles.TILE) * tiles.TILE, 96, dtype=torch.bfloat16)
    x[:rows] = torch.randn(rows, 96, generator=generator)
    out = np.full((len(x), 80), np.nan, np.float32)
    operands = [each.view(torch.int16).numpy().view(np.uint16) for each in (tiles.arranged(weight), x)]
    given = operands[0], np.ones(72, np.float32), operands[1], out, tiles.set_up()
    Threads().run(dense_alone, *given, turns=2, threads=2)
    torch.testing.assert_close(torch.from_numpy(out)[:, :72], x.float() @ weight.float().T, atol=1e-4, rtol=0)
    assert not out[:, 72:].any()


@needs_tiles
@pytest.mark.usefixtures("small_ones_too")
def test_with_a_matrix_unit_an_image_is_the_same_in_any_batch(model: DalleBart) -> None:
    few = _draw(model, 1, dtype="bfloat16", images_per_prompt=3, top_k=20)
    many = _draw(model, 1, dtype="bfloat16", images_per_prompt=30, top_k=20)
    assert np.array_equal(few, many[:3])


def test_the_gelu_and_the_exponential_are_those_of_torch() -> None:
    import numba

    from models.bart.compiled.arithmetic import exp, gelu

    def of_all(function: Any, x: np.ndarray) -> np.ndarray:
        return numba.njit(lambda x: np.array([function(each) for each in x]))(x)

    x = torch.linspace(-12, 12, 10001)
    found = torch.from_numpy(of_all(gelu, x.numpy()))
    torch.testing.assert_close(found.double(), F.gelu(x.double()), atol=5e-7, rtol=2e-7)
    x = torch.linspace(-100, 0, 10001)
    found = torch.from_numpy(of_all(exp, x.numpy()))
    torch.testing.assert_close(found.double(), x.double().exp(), atol=2e-38, rtol=5e-6)
    assert np.isnan(of_all(exp, np.full(3, np.nan, np.float32))).all()
    assert np.isnan(of_all(gelu, np.full(3, np.nan, np.float32))).all()


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("scale", [1, 10])
@pytest.mark.parametrize("loaded", ["flax", "min-dalle"])
def test_greedy_codes_are_those_of_the_reference(loaded: str, scale: int, model: DalleBart) -> None:
    if loaded == "min-dalle":
        model = open_min_dalle(GOLDEN_MIN_DALLE).load()
    expected = golden_bart(f"expected_greedy_codebook_only_scale{scale}").numpy()[:, 1:]
    for row, codes in enumerate(expected):
        assert np.array_equal(_draw(model, row, guidance=scale)[0], codes)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("images", [1, 2])
def test_the_codes_of_both_decoders_are_equal(
    model: DalleBart, images: int, guided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"images_per_prompt": images, "guided": guided, "guidance": 3 if guided else 1, "top_k": 20}
    others = _draw(model, 0, **options)
    monkeypatch.setattr(config, "LEAST_COMPILED_BYTES", 0)
    assert np.array_equal(_draw(model, 0, **options), others)


def test_a_caption_may_be_longer_than_an_image() -> None:
    config = replace(open_bart(GOLDEN_BART).config, max_text_length=50)
    other = random_bart(config)
    ids = torch.randint(3, 100, (2, 50), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(50) < torch.tensor([[50], [40]])).long()
    decoder = CompiledDecoder(other.decoder, rows=2, codebook_size=CODES, dtype=torch.float32)
    with torch.inference_mode():
        states = other.encode(ids, mask)
        decoder.begin([(states, mask)])
        found = decoder.logits(decoder.step(torch.tensor([3, 4]), torch.tensor([0]), 1, exact=True))
        expected = other.logits(torch.tensor([[3], [4]]), states, mask)[:, 0, :CODES]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("small_ones_too")
def test_weights_that_give_no_numbers_are_reported() -> None:
    broken = random_bart(open_bart(GOLDEN_BART).config)
    broken.decoder.layers[0].glu.fc2.weight[3, 5] = torch.nan  # type: ignore[union-attr, index]
    with pytest.raises(CheckpointError, match="no numbers"):
        _draw(broken, 0)


@needs_tiles
@pytest.mark.usefixtures("small_ones_too")
def test_a_norm_of_bytes_that_are_all_ones_is_reported_with_a_matrix_unit() -> None:
    broken = random_bart(open_bart(GOLDEN_BART).config)
    broken.decoder.layers[1].glu.ln1.bias.view(torch.int32)[5] = -1
    with pytest.raises(CheckpointError, match="no numbers"):
        _draw(broken, 0, dtype="bfloat16", images_per_prompt=2)


def test_every_float32_is_rounded_as_torch_does() -> None:
    import numba

    from models.bart.compiled.arithmetic import rounded

    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    bits = (upper[:, None] + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
    values, out = bits.view(np.float32), np.zeros(1, np.uint16)
    found = numba.njit(lambda values, out: np.array([rounded(value, out) for value in values]))(values, out)
    numbers = torch.from_numpy(found).view(torch.bfloat16).float()
    expected = torch.from_numpy(values).bfloat16().float()
    torch.testing.assert_close(numbers, expected, atol=0, rtol=0, equal_nan=True)


held_in = pytest.mark.parametrize(
    ("dtype", "rows"),
    [("float32", 2), ("float32", 4), ("float32", 34), ("bfloat16", 2), ("bfloat16", 34), ("int8", 2), ("int8", 34)],
)


def _first_logits(decoder: CompiledDecoder, captions: list[torch.Tensor]) -> torch.Tensor:
    """[rows, CODES]. The captions [pieces, D] each serve as many rows, and those of each are fed the same codes."""
    mask = torch.ones(len(captions), max(map(len, captions)), dtype=torch.int64)
    for row, caption in enumerate(captions):
        mask[row, len(caption) :] = 0
    states = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True)
    ids = torch.arange(decoder.rows // len(captions)).repeat(len(captions))
    with torch.inference_mode():
        decoder.begin([(states.to(decoder.codes.dtype), mask)])
        found = decoder.step(ids, torch.tensor([0]), 1, exact=True)
        return decoder.logits(found).clone()


def _captions(model: DalleBart, *pieces: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, model.config.d_model, generator=generator) for count in pieces]


@held_in
@pytest.mark.parametrize("pieces", [(2, 2), (5, 5), (5, 10), (9, 16)], ids=str)
def test_the_number_of_threads_moves_no_bit(model: DalleBart, dtype: str, rows: int, pieces: tuple[int, ...]) -> None:
    """From the states of captions on: those come from a text encoder, whose products are torch's."""
    decoder = CompiledDecoder(model.decoder, rows=rows, codebook_size=CODES, dtype=getattr(torch, dtype))
    captions = _captions(model, *pieces)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(_first_logits(decoder, captions))
    torch.set_num_threads(before)
    assert torch.equal(*found)


@held_in
def test_the_captions_beside_it_move_no_bit_of_a_row(model: DalleBart, dtype: str, rows: int) -> None:
    decoder = CompiledDecoder(model.decoder, rows=rows, codebook_size=CODES, dtype=getattr(torch, dtype))
    one, short, long = _captions(model, 5, 2, 16)
    half = rows // 2
    expected = _first_logits(decoder, [one, short])
    assert torch.equal(_first_logits(decoder, [one, long])[:half], expected[:half])
    assert torch.equal(_first_logits(decoder, [long, one])[half:], expected[:half])


def _decoder_of(model: DalleBart, **options: object) -> type:
    given = {"prompts_per_batch": 1, "images_per_prompt": 1, "threads": 1, **options}
    return type(TokenGenerator(model, codebook_size=CODES, **given).decoder)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jobs_that_began_before_panels_keep_the_other_decoder_for_more_than_two_guided_images(
    dtype: str, model: DalleBart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "usable", lambda: False)
    assert _decoder_of(model, images_per_prompt=2, dtype=dtype, products="pairs") is CompiledDecoder
    assert _decoder_of(model, images_per_prompt=3, dtype=dtype, products="pairs") is CachedDecoder
    assert _decoder_of(model, images_per_prompt=3, dtype=dtype) is CompiledDecoder


@needs_tiles
def test_with_a_matrix_unit_it_multiplies_many_rows_of_bfloat16() -> None:
    assert compiled.kind_of_products(80, torch.bfloat16, "panels") == "tiles"
    assert compiled.kind_of_products(80, torch.bfloat16, "pairs") == "tiles"
    assert compiled.kind_of_products(80, torch.float32, "panels") == "panels"


@pytest.mark.parametrize(("name", "value"), [("CPU_NAME", "generic"), ("CPU_FEATURES", "")])
def test_a_matrix_unit_is_left_alone_if_numba_compiles_for_another_processor(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles.config, name, value)
    assert not tiles.usable()


def test_a_small_network_is_not_worth_compiling(model: DalleBart) -> None:
    assert _decoder_of(model) is CachedDecoder


@pytest.mark.usefixtures("small_ones_too")
def test_without_numba_the_other_decoder_draws(model: DalleBart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert _decoder_of(model) is CachedDecoder


@pytest.mark.parametrize("option", ["published", "force_ln_scale", "scale_embedding"])
def test_its_options_give_the_logits_of_the_plain_network(option: str, model: DalleBart) -> None:
    other = random_bart(replace(model.config, **{} if option == "published" else {option: True}))
    ids, mask, codes = golden_bart("input_ids"), golden_bart("attention_mask"), golden_bart("decoder_input_ids")
    decoder = CompiledDecoder(other.decoder, rows=4, codebook_size=other.config.output_size, dtype=torch.float32)
    with torch.inference_mode():
        states = other.encode(ids, mask)
        expected = other.logits(codes, states, mask)
        decoder.begin([(states, mask)])
        for step in range(codes.shape[1]):
            found = decoder.logits(decoder.step(codes[:, step], torch.tensor([step]), step + 1, exact=True))
            torch.testing.assert_close(found, expected[:, step], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"ln_positions": "preln"},
        {"ln_type": "rmsnorm"},
        {"activation_function": "silu"},
        {"use_glu": False},
        {"use_bias": True},
        {"d_model": 48},
    ],
    ids=str,
)
def test_options_that_it_does_not_have_are_left_to_the_other_decoder(options: dict[str, Any], model: DalleBart) -> None:
    assert compiled.obstacle(model.config, 2, CPU, torch.float32, "panels") is None
    obstacle = compiled.obstacle(replace(model.config, **options), 2, CPU, torch.float32, "panels")
    assert str(next(iter(options.values()))) in str(obstacle)


def test_float16_is_left_to_the_other_decoder(model: DalleBart) -> None:
    assert compiled.obstacle(model.config, 2, CPU, torch.float16, "panels") is not None


def test_weights_of_8_bits_move_the_logits_a_little(model: DalleBart) -> None:
    found, expected = _logits(model, 4, torch.int8)
    assert 1e-3 < (found - expected).abs().max() < 0.2 * expected.std()


def test_a_generator_of_8_bits_draws_valid_codes_again_and_again(model: DalleBart) -> None:
    first = _draw(model, 0, dtype="int8", top_k=20)
    assert first.min() >= 0
    assert first.max() < CODES
    assert np.array_equal(first, _draw(model, 0, dtype="int8", top_k=20))


@pytest.mark.usefixtures("small_ones_too")
def test_a_numba_of_another_numpy_leaves_it_to_the_other_decoder(
    model: DalleBart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numba.py").write_text('raise ImportError("made for another NumPy")\n')
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert _decoder_of(model) is CachedDecoder
    with pytest.raises(ConfigError, match="made for another NumPy"):
        _draw(model, 0, dtype="int8")


def test_two_threads_may_draw_at_once(model: DalleBart) -> None:
    decoders = [CompiledDecoder(model.decoder, rows=2, codebook_size=64, dtype=torch.float32) for _ in range(2)]

    length = model.config.image_length

    def drawn(decoder: CompiledDecoder) -> torch.Tensor:
        with torch.inference_mode():
            for step in range(10 * length):
                at = step % length
                states = decoder.step(torch.tensor([3, 4]), torch.tensor([at]), at + 1, exact=True)
            return decoder.logits(states).clone()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(drawn, decoders)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    torch.testing.assert_close(first, drawn(decoders[0]), atol=0, rtol=0)


def test_torch_has_its_threads_again_after_drawing(model: DalleBart) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _draw(model, 0, dtype="int8", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


OLD_PROCESSOR = """
import numba, numpy as np
from models.bart.compiled.products import _dot_pair
product = numba.njit(lambda w, x: _dot_pair(w, 0, x, 0, len(w)))
print(product(np.ones(64, np.float32), np.ones(128, np.float32)))
print("fmaf" in "".join(product.inspect_asm().values()))
"""


def test_a_processor_that_cannot_multiply_and_add_at_once_does_one_after_the_other() -> None:
    settings = os.environ | {"NUMBA_CPU_NAME": "generic"}
    ended = subprocess.run([sys.executable, "-c", OLD_PROCESSOR], env=settings, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "(64.0, 64.0)\nFalse\n"), ended.stderr


BITS = """
import hashlib, torch
from models.bart.compiled import layers
from models.bart.compiled.decoder import CompiledDecoder
from models.bart.config import DalleBartConfig
from models.bart.network import DalleBart
torch.set_num_threads(1)
torch.manual_seed(0)
size = dict(d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
small = dict(encoder_vocab_size=9, image_vocab_size=64, decoder_start_token_id=64, image_length=64)
model = DalleBart(DalleBartConfig(**size, **small, encoder_ffn_dim=99, decoder_ffn_dim=99)).eval()
many = ((torch.float32, 7), (torch.bfloat16, 7), (torch.int8, 7))
for dtype, rows in ((torch.float32, 2), (torch.bfloat16, 2), (torch.bfloat16, 4), (torch.int8, 2), *many):
    with torch.inference_mode():
        decoder = CompiledDecoder(model.decoder, rows=rows, codebook_size=64, dtype=dtype)
        decoder.begin([(torch.randn(rows, 40, 64), torch.ones(rows, 40))])
        for step in range(64):
            states = decoder.step(torch.full((rows,), step), torch.tensor([step]), step + 1, exact=True)
        print(hashlib.sha256(decoder.logits(states).clone().numpy().tobytes()).hexdigest())
print(sum(layers.run_layers.stats.cache_hits.values()) > 0)
"""


def _bits(folder: Path, **settings: str) -> tuple[list[str], bool]:
    """What another process computes with its cache in `folder`, and whether it found that there."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)} | settings
    ended = subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True)
    *found, loaded = ended.stdout.splitlines() or [ended.stderr]
    assert (len(found), loaded in ("True", "False")) == (7, True), ended.stderr
    return found, loaded == "True"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_process_compiles_and_what_others_load_or_compile_otherwise_are_the_same_bits(tmp_path: Path) -> None:
    compiled_here, loaded = _bits(tmp_path)
    assert not loaded
    assert _bits(tmp_path) == (compiled_here, True)
    host = binding.get_host_cpu_features()
    if host.get("avx2") and host.get("fma"):
        narrow, _ = _bits(tmp_path, NUMBA_CPU_NAME="haswell")  # vectors of half the width, and no other units
        other = ({2, 5} if tiles.usable() else set()) | ({3, 6} if panels.multiplies_bytes() else set())
        assert [n for n in range(7) if narrow[n] != compiled_here[n]] == sorted(other)


def test_8_bits_need_numba(model: DalleBart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ConfigError, match="pip install numba"):
        _draw(model, 0, dtype="int8")
