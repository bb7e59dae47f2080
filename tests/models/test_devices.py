from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.devices import FASTEST, collapse_into_huge_pages, resolve_device, resolve_dtype
from models.errors import ConfigError
from models.vqgan.config import VQGANConfig
from tests.support.vqgan_checkpoints import TINY


def test_auto_is_a_gpu_if_there_is_one() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "", "cuda:1:2"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device(device)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'cuda:99': torch .* sees \d+ CUDA GPUs"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(
    ("dtype", "device", "resolved"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "cuda", "bfloat16"),
        ("auto", "cuda:1", "bfloat16"),
        ("tf32", "cuda", "tf32"),
        ("float16", "cpu", "float16"),
        ("fp16", "cpu", "float16"),
        ("bf16", "cpu", "bfloat16"),
        ("fp32", "cuda", "float32"),
    ],
)
def test_dtypes_resolve_by_device_without_opening_it(dtype: str, device: str, resolved: str) -> None:
    assert resolve_dtype(dtype, device) == resolved


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [((7, 0), ["sm_75", "sm_80"], False), ((7, 5), ["sm_75", "sm_80"], True), ((8, 9), ["sm_80", "sm_90"], True),
     ((8, 0), ["sm_75", "sm_86"], False), ((12, 1), ["sm_90a", "sm_120f"], True),
     ((9, 0), ["sm_80", "compute_80"], True),
     ((7, 0), ["sm_75", "compute_75"], False)],
)  # fmt: skip
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_torch_has_no_code_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    for name, value in {"is_available": True, "device_count": 1, "get_arch_list": built}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "Tesla V100-SXM2-16GB")
    if runs:
        assert resolve_device(device) == device.replace("auto", "cuda")
        return
    with pytest.raises(
        ConfigError, match=r"Tesla V100-SXM2-16GB of compute capability .* has code for sm_75"
    ) as refused:
        resolve_device(device)
    assert "--device cpu" in str(refused.value)
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("capability", "auto", "fastest"),
    [((7, 0), "float32", "float16"), ((7, 5), "float32", "float16"), ((8, 0), "bfloat16", "bfloat16"),
     ((8, 9), "bfloat16", "bfloat16"), ((12, 0), "bfloat16", "bfloat16")],
)  # fmt: skip
def test_a_gpu_without_arithmetic_for_bfloat16_gets_none_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], auto: str, fastest: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {0: (9, 0), 1: capability}.get)
    assert [resolve_dtype(name, "cuda:1") for name in ("auto", FASTEST, "bf16")] == [auto, fastest, "bfloat16"]
    assert [resolve_dtype(name, "cuda") for name in ("auto", FASTEST)] == ["bfloat16", "bfloat16"]
    assert [resolve_dtype("auto", "cuda:1", gpu_bfloat16=there) for there in (True, False)] == ["bfloat16", "float32"]


@pytest.mark.parametrize(
    ("dtype", "message"), [("tf32", "NVIDIA GPUs only"), ("int8", "'int8': expected auto, fastest, float32")]
)
def test_a_dtype_that_the_device_lacks_is_refused(dtype: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_dtype(dtype, "cpu")


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch multiplies without MKL")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_query_attends_to_the_same_bits_at_any_position_in_the_batch(threads: int) -> None:
    """A token step's attention: with several threads MKL's operands begin at other addresses for each of them."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(1, 4, n, 32, generator=generator).repeat(6, 1, 1, 1) for n in (1, 64, 64))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = F.scaled_dot_product_attention(query, keys, values)
    torch.set_num_threads(before)
    assert torch.equal(found, found[:1].expand_as(found))


def test_the_default_batch_falls_with_the_size_of_the_images() -> None:
    def batch_size(config: VQGANConfig, device: str = "cpu") -> int:
        return config.spec(name="").batch_size(device)

    f16 = VQGANConfig()
    assert batch_size(TINY) > batch_size(f16) >= 1
    assert batch_size(f16, "cuda") > batch_size(f16)
    assert batch_size(replace(f16, resolution=4096)) == 1


def large_page_bytes() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"AnonHugePages:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def test_arrays_move_and_keep_their_values() -> None:
    values = torch.arange(1 << 22)
    moved = collapse_into_huge_pages()
    assert torch.equal(values, torch.arange(1 << 22))
    if moved:  # elsewhere the system cannot, or has large pages only
        assert large_page_bytes() >= 1 << 24
