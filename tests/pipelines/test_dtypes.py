"""`--dtype fastest`, and what new plans choose by the processor; stored ones go on as they began."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba")

from models import processor
from models.bart import config, generator
from models.bart.compiled import tiles
from models.bart.compiled.decoder import CompiledDecoder
from tests.support.job_service import Script, State, job_service
from tests.support.run_command import Outcome, run
from tests.support.small_jobs import dataset, encode_small
from transforms.ledger.plan import Plan, load_plan

PROMPTS = ("--prompt", "a red apple", "a rocket", "a boat")
NOT_SAID = "no fast arithmetic for "


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A processor with AVX2 alone."""
    (tmp_path / "cpuinfo").write_text("vendor_id\t: GenuineIntel\nflags\t\t: avx2 fma\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(tiles, "usable", lambda: False)


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of products of the compiled decoders; every network counts as large."""
    found: list[str] = []

    class Noted(CompiledDecoder):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            found.append(self.kind)

    monkeypatch.setattr(config, "LEAST_COMPILED_BYTES", 0)
    monkeypatch.setattr(generator, "CompiledDecoder", Noted)
    return found


def plan_of(output: Path) -> Plan:
    plan = load_plan(str(output))
    assert plan is not None
    return plan


def draw(model: Path, output: Path, *flags: str) -> Outcome:
    words = ("--model", model, *PROMPTS, "--device", "cpu", "--rows_per_shard", 2, "--keep_tokens", *flags)
    drawn = run("generate", *words, output=output)
    assert drawn.code == 0, drawn.err
    return drawn


@pytest.mark.usefixtures("without_units")
def test_the_fastest_dtype_is_said_and_kept_in_the_plan(
    tiny_generator: Path, tmp_path: Path, kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert "--dtype fastest: int8 on this cpu" in draw(tiny_generator, output, "--dtype", "fastest").err
    plan = plan_of(output)
    assert [plan.choice(name) for name in ("dtype", "products", "painted_in")] == ["int8", "panels", "float32"]
    assert set(kinds) == {"panels"}
    monkeypatch.setattr(config, "LEAST_COMPILED_BYTES", 1 << 60)  # now another would be the fastest
    assert draw(tiny_generator, output, "--dtype", "fastest").err.count("fastest") == 0
    assert plan_of(output) == plan


@pytest.mark.usefixtures("without_units")
def test_a_stored_plan_without_panels_goes_on_without_them(
    tiny_generator: Path, tmp_path: Path, kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, flags = tmp_path / "out", ("--dtype", "bfloat16", "--batch_size", "4")
    with monkeypatch.context() as then:
        then.setattr(config, "LEAST_COMPILED_BYTES", 1 << 60)
        draw(tiny_generator, output, *flags)
    assert not {"products", "painted_in"} & plan_of(output).fingerprint.keys()
    path = output / "data" / "00001.parquet"
    before = path.read_bytes()
    path.unlink()
    (output / "_vqbeam" / "stats" / "00001.json").unlink()
    draw(tiny_generator, output, *flags)
    assert (path.read_bytes(), kinds) == (before, [])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.usefixtures("without_units")
def test_a_dtype_is_warned_of_once_where_the_processor_has_no_arithmetic_for_it(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    source = dataset(tmp_path / "in", 1)
    slow = encode_small(source, tmp_path / "slow", tiny_model, "--device", "cpu", "--dtype", dtype)
    assert (slow.code, slow.err.count(NOT_SAID + dtype)) == (0, 1)
    fast = encode_small(source, tmp_path / "fast", tiny_model, "--device", "cpu", "--dtype", "fastest")
    assert (fast.code, NOT_SAID in fast.err, "--dtype fastest: float32" in fast.err) == (0, False, True)
    assert plan_of(tmp_path / "fast").fingerprint["dtype"] == "float32"


def test_the_fastest_on_other_machines_is_not_known_here(tiny_model: Path, tmp_path: Path) -> None:
    words = ("--input", dataset(tmp_path / "in", 1), "--model", tiny_model, "--device", "cpu", "--dtype", "fastest")
    with job_service(Script(State.FAILED)) as running:
        flags = ("--runner=PortableRunner", f"--job_endpoint={running.endpoint}", "--environment_type=LOOPBACK")
        refused = run("encode", *words, *flags, output=tmp_path / "out")
    assert refused.code == 2
    assert "name one" in refused.err
