from __future__ import annotations

from pathlib import Path

import pytest

from models import processor
from models.devices import FASTEST, painting_dtype, resolve_dtype

INTEL, AMD = "GenuineIntel", "AuthenticAMD"


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A processor of another kind: its vendor and flags."""
    vendor, flags = request.param
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("described", "fast"),
    [
        ((INTEL, "avx2 fma"), False),
        ((INTEL, "avx512f avx512_vnni"), False),
        ((INTEL, "avx512f avx512_bf16 avx512_vnni"), False),
        ((INTEL, "avx512f avx512_bf16 amx_bf16"), True),
        ((AMD, "avx512f avx512_bf16 avx512_vnni"), True),
        ((AMD, "avx2 fma"), False),
    ],
    ids=str,
    indirect=["described"],
)
@pytest.mark.usefixtures("described")
def test_the_fastest_dtype_of_a_processor_is_one_that_it_has_arithmetic_for(fast: bool) -> None:
    assert processor.multiplies_bfloat16() is fast
    best = "bfloat16" if fast else "float32"
    assert resolve_dtype(FASTEST, "cpu") == best
    assert [painting_dtype(drawn, "cpu") for drawn in ("int8", "bfloat16", "float32")] == [best, best, "float32"]


@pytest.mark.parametrize(
    ("described", "fast"),
    [((INTEL, "avx512f avx512_bf16 avx512_fp16 amx_bf16"), False), ((INTEL, "amx_bf16 amx_fp16"), True)],
    ids=str,
    indirect=["described"],
)
@pytest.mark.usefixtures("described")
def test_only_a_matrix_unit_is_taken_to_be_faster_in_float16(fast: bool) -> None:
    assert processor.multiplies_float16() is fast


def test_the_fastest_dtype_of_a_gpu_is_bfloat16() -> None:
    assert resolve_dtype(FASTEST, "cuda:1") == "bfloat16"
    assert painting_dtype("bfloat16", "cuda") == "bfloat16"


def test_without_a_description_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor.described() == {}
    assert resolve_dtype(FASTEST, "cpu") == "float32"
