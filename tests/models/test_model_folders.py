from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.bart.checkpoint import open_bart, save_bart
from models.errors import CheckpointError
from models.model_folders import find_bart, find_clip, find_vqgan
from models.vqgan.checkpoint import open_checkpoint, save_vqgan
from tests.support.fixtures_bart import TINY_BART, random_bart, write_dalle_mini, write_min_dalle
from tests.support.fixtures_checkpoints import TINY, min_dalle_weights, random_vqgan, write_taming, write_vqgan_jax


def bart_weights() -> dict[str, torch.Tensor]:
    return dict(random_bart().state_dict())


def vqgan_weights() -> dict[str, torch.Tensor]:
    return dict(random_vqgan().state_dict())


def write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))


def test_the_embedded_layout(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="tiny")
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    write_clip(tmp_path / "clip")
    assert find_bart(tmp_path) == tmp_path / "dalle_bart"
    assert find_vqgan(tmp_path) == tmp_path
    assert find_clip(tmp_path) == tmp_path / "clip"


def test_the_layout_that_convert_writes(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path / "vqgan", name="tiny")
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    assert find_bart(tmp_path) == tmp_path / "dalle_bart"
    assert find_vqgan(tmp_path) == tmp_path / "vqgan"
    assert find_clip(tmp_path) is None


@pytest.mark.parametrize(("sizes", "found"), [(["mini"], "mini"), (["mega"], "mega"), (["mini", "mega"], "mega")])
def test_the_cache_of_min_dalle(sizes: list[str], found: str, tmp_path: Path) -> None:
    for size in sizes:
        write_min_dalle(tmp_path / f"dalle_bart_{size}", bart_weights())
    (tmp_path / "vqgan").mkdir()
    torch.save(min_dalle_weights(vqgan_weights()), tmp_path / "vqgan" / "detoker.pt")
    assert find_bart(tmp_path) == tmp_path / f"dalle_bart_{found}"
    vqgan = find_vqgan(tmp_path)
    assert vqgan == tmp_path / "vqgan"
    assert open_checkpoint(vqgan).format == "min-dalle"


def test_the_flat_folder_of_min_dalle(tmp_path: Path) -> None:
    write_min_dalle(tmp_path, bart_weights())
    write_min_dalle(tmp_path, bart_weights(), suffix="_mini")
    torch.save(min_dalle_weights(vqgan_weights()), tmp_path / "detoker.pt")
    assert find_bart(tmp_path) == find_vqgan(tmp_path) == tmp_path
    mini = tmp_path / "encoder_mini.pt"
    assert find_bart(mini) == mini
    assert find_vqgan(mini) == tmp_path


def test_a_folder_that_is_one_model(tmp_path: Path) -> None:
    write_dalle_mini(tmp_path / "bart", bart_weights(), TINY_BART)
    write_vqgan_jax(tmp_path / "jax", vqgan_weights(), TINY)
    write_taming(tmp_path / "taming", vqgan_weights(), TINY)
    write_clip(tmp_path / "clip_alone")
    assert find_bart(tmp_path / "bart") == tmp_path / "bart"
    assert find_bart(tmp_path / "bart" / "flax_model.msgpack") == tmp_path / "bart"
    assert open_bart(find_bart(tmp_path / "bart")).format == "dalle-mini"
    assert find_vqgan(tmp_path / "bart") is None
    assert find_vqgan(tmp_path / "jax") == tmp_path / "jax"
    assert find_vqgan(tmp_path / "taming") == tmp_path / "taming"
    assert find_clip(tmp_path / "clip_alone") == tmp_path / "clip_alone"
    assert find_clip(tmp_path / "bart") is None


def test_a_part_that_is_incomplete_is_found_by_its_name_and_told_by_its_reader(tmp_path: Path) -> None:
    save_bart(random_bart(), tmp_path / "dalle_bart", name="tiny")
    save_vqgan(random_vqgan(), tmp_path / "vqgan", name="tiny")
    (tmp_path / "dalle_bart" / "config.json").unlink()
    (tmp_path / "vqgan" / "model.safetensors").unlink()
    bart, vqgan = find_bart(tmp_path), find_vqgan(tmp_path)
    assert bart == tmp_path / "dalle_bart"
    assert vqgan == tmp_path / "vqgan"
    with pytest.raises(CheckpointError, match=r"dalle_bart/model\.safetensors: there is no config\.json beside it"):
        open_bart(bart)
    with pytest.raises(CheckpointError, match=r"vqgan: no VQGAN checkpoint here\. .*found config\.json$"):
        open_checkpoint(vqgan)


def test_a_folder_without_a_bart_is_told_with_what_it_holds(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="tiny")
    with pytest.raises(CheckpointError, match=r"no DALL·E BART here.*found config\.json, model\.safetensors\. Name"):
        find_bart(tmp_path)
    with pytest.raises(CheckpointError, match="found nothing"):
        find_bart(tmp_path / "nowhere")
