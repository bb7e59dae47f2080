"""Drawing codes: equal to dalle-mini if greedy, and independent of a prompt's position in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.bart import generator as token_generator
from models.bart.checkpoint import open_bart
from models.bart.decoder import CachedDecoder
from models.bart.generator import TokenGenerator
from models.bart.network import DalleBart
from models.bart.options import SAMPLING
from models.bart.request import TokenRequest
from models.bart.sampling import Search
from models.errors import CheckpointError, ConfigError
from models.uniforms import uniforms
from models.whereabouts import watched
from tests.support.bart_checkpoints import (
    GOLDEN_BART,
    GOLDEN_MIN_DALLE,
    GOLDEN_OPTIONS,
    golden_bart,
    open_min_dalle,
    random_bart,
    sampling,
)

OPTIONS = sorted(folder.name for folder in GOLDEN_OPTIONS.iterdir() if folder.is_dir())
STEPS, CODES = 16, 64


@dataclass(frozen=True)
class Prompts(TokenRequest):
    """A request that is easy to make, to cut and to draw."""

    @classmethod
    def golden(cls, images: int = 1, guidance: float = 10, top_k: int = 0) -> Prompts:
        ids, mask = golden_bart("input_ids").numpy(), golden_bart("attention_mask").numpy()
        rows = len(ids)
        drawn = [[uniforms(0, str(row), image, STEPS) for image in range(images)] for row in range(rows)]
        return cls(ids, mask, np.array(drawn), sampling(rows, guidance, top_k))

    def take(self, rows: list[int]) -> Prompts:
        options = {name: values[rows] for name, values in self.options.items()}
        return Prompts(self.input_ids[rows], self.attention_mask[rows], self.uniforms[rows], options)

    def having(self, **options: object) -> Prompts:
        return replace(self, options={**self.options, **{name: np.asarray(value) for name, value in options.items()}})

    def draw(self, generator: TokenGenerator, **completion: np.ndarray) -> np.ndarray:
        return generator.generate(replace(self, **completion))


@pytest.fixture(scope="module")
def model() -> DalleBart:
    return open_bart(GOLDEN_BART).load()


def generator(
    model: DalleBart, prompts: int = 4, images: int = 1, dtype: str = "float32", guided: bool = True
) -> TokenGenerator:
    return TokenGenerator(
        model,
        codebook_size=CODES,
        prompts_per_batch=prompts,
        images_per_prompt=images,
        dtype=dtype,
        guided=guided,
        threads=1,
    )


@pytest.mark.parametrize("scale", [1, 10])
@pytest.mark.parametrize("loaded", ["flax", "min-dalle"])
def test_greedy_codes_are_those_of_the_reference(loaded: str, scale: int, model: DalleBart) -> None:
    if loaded == "min-dalle":
        model = open_min_dalle(GOLDEN_MIN_DALLE).load()
    found = Prompts.golden(guidance=scale, top_k=1).draw(generator(model))
    assert np.array_equal(found[:, 0], golden_bart(f"expected_greedy_codebook_only_scale{scale}").numpy()[:, 1:])


def test_without_guidance_half_of_the_work_gives_the_same_codes(model: DalleBart) -> None:
    prompts = Prompts.golden(images=2, guidance=1)
    half = generator(model, images=2, guided=False)
    assert np.array_equal(prompts.draw(half), prompts.draw(generator(model, images=2)))


@pytest.mark.parametrize("exact", [True, False], ids=["filled positions", "masked positions"])
@pytest.mark.parametrize("option", ["published", *OPTIONS])
def test_logits_through_the_caches_are_those_without(option: str, exact: bool, model: DalleBart) -> None:
    """Teacher forcing; a GPU masks positions, since the host does not know the current one."""
    if option == "published":
        given = {name: golden_bart(name) for name in ("input_ids", "attention_mask", "decoder_input_ids")}
        expected = golden_bart("expected_logits")
    else:
        model = open_bart(GOLDEN_OPTIONS / option).load()
        saved = np.load(GOLDEN_OPTIONS / option / "expected.npz")
        given = {name: torch.from_numpy(saved[name]) for name in ("input_ids", "attention_mask", "decoder_input_ids")}
        states = model.encode(given["input_ids"], given["attention_mask"])
        expected = model.logits(given["decoder_input_ids"], states, given["attention_mask"])
    ids = given["decoder_input_ids"]
    rows, length = ids.shape
    size = model.config.output_size
    with torch.inference_mode():
        decoder = CachedDecoder(
            model.decoder,
            rows=rows,
            predicted_rows=rows,
            codebook_size=size,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        decoder.begin([(model.encode(given["input_ids"], given["attention_mask"]), given["attention_mask"])])
        for step in range(length):
            filled = step + 1 if exact else length
            found = decoder.logits(decoder.step(ids[:, step], torch.tensor([step]), filled, exact=exact))
            torch.testing.assert_close(found, expected[:, step], atol=1e-4, rtol=0)


class RehearsedGpu:
    """What `torch.cuda` does for recorded programs, played on a CPU: recording has no effect, replaying has.

    `streams` and `pools` are those that programs were recorded with.
    """

    def __init__(self, generator: TokenGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator = generator
        self.streams: list[object] = []
        self.pools: list[object] = []
        self.replayed = 0
        self.waited_for: list[int] = []  # replays that it was waited for, by how many there were
        stream = SimpleNamespace(wait_stream=lambda other: None)
        names = {
            "CUDAGraph": SimpleNamespace,
            "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
            "current_stream": lambda device=None: stream,
            "Event": self._event,
            "graph_pool_handle": object,
            "device": nullcontext,
            "stream": nullcontext,
            "graph": self._graph,
        }
        for name, fake in names.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self._step = generator._step
        monkeypatch.setattr(generator, "_step", self._noted)
        monkeypatch.setattr(generator, "_records", True)

    def _event(self) -> SimpleNamespace:
        after = self.replayed
        return SimpleNamespace(record=lambda stream: None, synchronize=lambda: self.waited_for.append(after))

    def _noted(self, filled: int, search: Search) -> None:
        self._last = partial(self._step, filled, search)
        self._last()

    @contextmanager
    def _graph(
        self, program: SimpleNamespace, *, pool: object, stream: object, capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.streams.append(stream)
        self.pools.append(pool)
        buffers = vars(self.generator._buffers)
        tensors = [value for name, value in buffers.items() if name != "options"] + [*buffers["options"].values()]
        state = [*tensors, *(layer.cache for layer in self.generator.decoder.layers)]
        before = [tensor.clone() for tensor in state]
        yield
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        recorded = self._last

        def replay() -> None:
            self.replayed += 1
            recorded()

        program.replay = replay


def test_recorded_steps_draw_the_same_codes(model: DalleBart, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Prompts.golden(images=2, guidance=3, top_k=20)
    expected = prompts.draw(generator(model, images=2))
    monkeypatch.setattr(token_generator, "BLOCK", 4)
    recording = generator(model, images=2)
    gpu = RehearsedGpu(recording, monkeypatch)
    for _ in range(2):
        assert np.array_equal(prompts.draw(recording), expected)
    assert len(gpu.streams) == STEPS // 4
    assert gpu.replayed == 2 * STEPS
    assert len(set(map(id, gpu.streams))) == len(set(map(id, gpu.pools))) == 1


def told_by(generator: TokenGenerator, prompts: Prompts) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    with watched(lambda *where: told.append(where)):
        prompts.draw(generator)
    return told


def test_each_code_is_told_once_it_is_drawn(model: DalleBart) -> None:
    steps = [("codes", drawn, STEPS) for drawn in range(1, STEPS + 1)]
    assert told_by(generator(model), Prompts.golden()) == [*steps, steps[-1]]


def test_of_steps_that_a_gpu_was_given_those_are_told_that_it_has_done(
    model: DalleBart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_generator, "BLOCK", 4)
    recording = generator(model)
    gpu = RehearsedGpu(recording, monkeypatch)
    for call in range(2):
        assert told_by(recording, Prompts.golden()) == [("codes", drawn, STEPS) for drawn in (4, 8, STEPS)]
        assert gpu.waited_for[2 * call :] == [4 + STEPS * call, 8 + STEPS * call]


def test_with_and_without_caches_the_same_codes_are_drawn(model: DalleBart) -> None:
    prompts = Prompts.golden(guidance=3, top_k=1)
    found = prompts.draw(generator(model))[:, 0]
    blank_ids, blank_mask = golden_bart("input_ids_uncond"), golden_bart("attention_mask_uncond")
    ids = torch.full((4, 1), model.config.decoder_start_token_id)
    with torch.inference_mode():
        states = model.encode(torch.from_numpy(prompts.input_ids), torch.from_numpy(prompts.attention_mask))
        blank = model.encode(blank_ids, blank_mask)
        for _ in range(STEPS):
            cond = model.logits(ids, states, torch.from_numpy(prompts.attention_mask))[:, -1, :CODES]
            uncond = model.logits(ids, blank, blank_mask)[:, -1, :CODES]
            ids = torch.cat([ids, (uncond + 3 * (cond - uncond)).argmax(1, keepdim=True)], 1)
    assert np.array_equal(found, ids[:, 1:].numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("images", [1, 3])
def test_a_prompt_draws_the_same_at_any_position_beside_any_neighbours(
    model: DalleBart, dtype: str, images: int
) -> None:
    shared = generator(model, prompts=5, images=images, dtype=dtype)
    prompts = Prompts.golden(images)
    together = prompts.draw(shared)
    for rows in ([3, 2, 1, 0], [2], [1, 1, 1, 1, 1], [0, 3]):
        assert np.array_equal(prompts.take(rows).draw(shared), together[rows])
    other = prompts.having(guidance_scale=[10.0, 1, 2, 3], top_k=[0, 5, 50, 1], top_p=[1, 0.5, 1, 1])
    assert np.array_equal(other.draw(shared)[0], together[0])


@pytest.mark.parametrize(("dtype", "threads"), [("float32", 1), ("float32", 2), ("bfloat16", 1)])
def test_states_have_equal_bytes_at_any_position_in_the_batch(dtype: str, threads: int) -> None:
    """A sharper look than at codes, with sizes at which products are cut into blocks."""
    config = replace(random_bart().config, d_model=128, decoder_attention_heads=4, decoder_ffn_dim=150, image_length=9)
    model = random_bart(config)
    rows, held = 12, torch.float32 if dtype == "float32" else torch.bfloat16
    decoder = CachedDecoder(
        model.decoder, rows=rows, predicted_rows=rows, codebook_size=12, device=torch.device("cpu"), dtype=held
    )
    states, mask = torch.randn(rows, 8, 128).to(held), torch.ones(rows, 8)
    ids = torch.randint(12, (rows, 9))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for order in (torch.arange(rows), torch.arange(rows).flip(0), torch.full((rows,), 4)):
                decoder.begin([(states[order], mask)])
                for step in range(9):
                    found = decoder.step(ids[order, step], torch.tensor([step]), step + 1, exact=True)
                logits = decoder.logits(found)
                if order[0] == 0:
                    expected, expected_logits = found, logits
                assert torch.equal(found, expected[order])
                assert torch.equal(logits, expected_logits[order])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_prompt_at_a_time_draws_its_images(model: DalleBart, dtype: str) -> None:
    prompts = Prompts.golden(images=3, top_k=1).take([2])
    found = prompts.draw(generator(model, prompts=1, images=3, dtype=dtype))
    assert found.shape == (1, 3, STEPS)
    if dtype == "float32":
        expected = golden_bart("expected_greedy_codebook_only_scale10").numpy()[2, 1:]
        assert np.array_equal(found[0], np.stack([expected] * 3))


def test_images_of_a_prompt_differ_by_their_random_numbers_alone(model: DalleBart) -> None:
    prompts = Prompts.golden(images=3, guidance=2)
    drawn = prompts.uniforms.copy()
    drawn[:, 1] = drawn[:, 0]
    found = replace(prompts, uniforms=drawn).draw(generator(model, images=3))
    assert np.array_equal(found[:, 0], found[:, 1])
    assert not np.array_equal(found[:, 0], found[:, 2])


def test_a_second_call_leaves_nothing_of_the_first(model: DalleBart) -> None:
    shared = generator(model)
    prompts = Prompts.golden()
    first = prompts.draw(shared)
    prompts.take([3, 1]).draw(shared)
    assert np.array_equal(prompts.draw(shared), first)


def test_kept_codes_are_taken_as_they_are_and_the_rest_is_completed(model: DalleBart) -> None:
    shared = generator(model, images=2)
    prompts = Prompts.golden(images=2)
    free = prompts.draw(shared)
    prefix = free.copy()
    prefix[1] = 7
    keep = np.array([0, 5, 16, 3])
    found = prompts.draw(shared, prefix=prefix, keep=keep)
    assert (found[1, :, :5] == 7).all()
    assert not np.array_equal(found[1], free[1])
    assert np.array_equal(found[[0, 2, 3]], free[[0, 2, 3]])  # kept codes that it would have drawn itself


def test_ids_that_are_no_codes_are_never_drawn(model: DalleBart) -> None:
    few = TokenGenerator(model, codebook_size=5, prompts_per_batch=4, images_per_prompt=3, threads=1)
    found = Prompts.golden(images=3).having(temperature=np.full(4, 100.0)).draw(few)
    assert set(np.unique(found)) == set(range(5))


@pytest.mark.parametrize("top_k", [0, 5])
def test_weights_that_give_no_numbers_are_refused_and_not_drawn_from(top_k: int) -> None:
    broken = open_bart(GOLDEN_BART).load()
    broken.decoder.final_ln.bias[3] = torch.nan
    with pytest.raises(CheckpointError, match="no numbers in float32"):
        Prompts.golden(top_k=top_k).draw(generator(broken))


@pytest.mark.parametrize("top_k", [0, 5])
def test_one_code_whose_logits_are_no_numbers_is_enough_to_refuse(top_k: int) -> None:
    broken = open_bart(GOLDEN_BART).load()
    broken.decoder.lm_head.weight[7, 3] = torch.nan
    with pytest.raises(CheckpointError, match="no numbers in float32"):
        Prompts.golden(top_k=top_k).draw(generator(broken))


def test_the_model_is_left_as_it_was(model: DalleBart) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Prompts.golden().draw(generator(model, dtype="bfloat16"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_caches_are_bounded_by_prompts_and_images(model: DalleBart) -> None:
    shared = generator(model, prompts=4, images=2)
    Prompts.golden(images=2).draw(shared)
    held = sum(layer.cache.numel() for layer in shared.decoder.layers)
    assert held == model.config.decoder_layers * 2 * (2 * 4 * 2 * STEPS * model.config.d_model)


def test_a_codebook_larger_than_the_vocabulary_is_refused(model: DalleBart) -> None:
    with pytest.raises(ConfigError, match="66 codes, but the DALL·E BART predicts 65 ids"):
        TokenGenerator(model, codebook_size=66, prompts_per_batch=1, images_per_prompt=1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", [1, 0, 1, 1], r"temperature at \(1,\): must be a finite number above 0"),
        ("temperature", [1, 1, np.nan, 1], r"temperature at \(2,\)"),
        ("guidance_scale", [np.inf, 1, 1, 1], r"guidance_scale at \(0,\): must be a finite number"),
        ("top_k", [0, 0, 0, -1], r"top_k at \(3,\)"),
        ("top_p", [0, 1, 1, 1], r"top_p at \(0,\)"),
        ("top_p", [1, 1, 1, 1.5], r"top_p at \(3,\)"),
        ("uniforms", np.ones((4, 1, STEPS)), r"uniforms at \(0, 0, 0\): must be in \[0, 1\)"),
        ("uniforms", np.zeros((4, 2, STEPS)), r"uniforms has shape \(4, 2, 16\), expected \(4, 1, 16\)"),
        ("attention_mask", np.zeros((4, 16), int), r"attention_mask at \(0,\): must show at least one piece"),
        ("input_ids", np.ones((5, 16), int), "5 prompts: this generator takes 1 to 4"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    model: DalleBart, name: str, value: list[float], message: str
) -> None:
    good = Prompts.golden()
    prompts = good.having(**{name: value}) if name in SAMPLING else replace(good, **{name: np.asarray(value)})
    with pytest.raises(ValueError, match=message):
        prompts.draw(generator(model))


@pytest.mark.parametrize(
    ("prefix", "keep", "message"),
    [
        (np.full((4, 1, STEPS), CODES), np.full(4, 1), r"prefix at \(0, 0, 0\): must be 0 to 63"),
        (np.zeros((4, 1, STEPS)), np.full(4, 17), r"keep at \(0,\): must be 0 to 16"),
        (np.zeros((4, 1, STEPS)), None, "prefix and keep go together"),
    ],
)
def test_completions_that_cannot_be_made_are_refused(
    model: DalleBart, prefix: np.ndarray, keep: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts.golden().draw(generator(model), prefix=prefix, keep=keep)  # type: ignore[arg-type]


def test_a_generator_without_guidance_refuses_prompts_that_ask_for_it(model: DalleBart) -> None:
    with pytest.raises(ValueError, match="must be 1, since the generator was made without guidance"):
        Prompts.golden(guidance=10).draw(generator(model, guided=False))
