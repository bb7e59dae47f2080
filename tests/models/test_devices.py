from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.devices import default_batch_size, resolve_device, resolve_dtype
from models.errors import ConfigError
from models.vqgan.config import VQGANConfig
from tests.support.fixtures_checkpoints import TINY


def test_auto_is_a_gpu_where_there_is_one() -> None:
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
    ],
)
def test_dtypes_resolve_by_device_without_opening_it(dtype: str, device: str, resolved: str) -> None:
    assert resolve_dtype(dtype, device) == resolved


@pytest.mark.parametrize(
    ("dtype", "message"), [("tf32", "NVIDIA GPUs only"), ("int8", "'int8': expected auto, float32")]
)
def test_a_dtype_that_the_device_lacks_is_refused(dtype: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_dtype(dtype, "cpu")


def test_the_default_batch_falls_with_the_size_of_the_pictures() -> None:
    f16 = VQGANConfig()
    assert default_batch_size("cpu", TINY) > default_batch_size("cpu", f16) >= 1
    assert default_batch_size("cuda", f16) > default_batch_size("cpu", f16)
    assert default_batch_size("cpu", replace(f16, resolution=4096)) == 1
