from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.bart import checkpoint as bart_checkpoints
from models.errors import CheckpointError, ConfigError
from models.find import EMBEDDED
from models.image_tokenizer import open_tokenizer
from models.vqgan import checkpoint as checkpoints
from models.vqgan.checkpoint import codebook_id, convert, open_checkpoint, save_vqgan
from models.vqgan.config import LevelShape, VQGANConfig
from models.vqgan.geometry import geometry
from models.vqgan.network import VQGAN
from models.weights import native as own_format
from models.weights.checkpoint import weights_id
from tests.support.vqgan_checkpoints import (
    TINY,
    TINY_GUMBEL,
    load_vqgan,
    min_dalle_weights,
    random_vqgan,
    taming_yaml,
    write_taming,
    write_vqgan_jax,
)

Writer = Callable[[Path, dict[str, Tensor]], Path]


def weights(config=TINY) -> dict[str, Tensor]:
    return dict(random_vqgan(config).state_dict())


def as_flax(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_vqgan_jax(folder, leaves, TINY)


def as_taming(folder: Path, leaves: dict[str, Tensor]) -> Path:
    return write_taming(folder, leaves, TINY)


def as_min_dalle(folder: Path, leaves: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(min_dalle_weights(leaves), folder / "detoker_mini.pt")
    return folder


def as_ours(folder: Path, leaves: dict[str, Tensor]) -> Path:
    save_vqgan(random_vqgan(), folder, name="tiny")
    save_file(leaves, folder / "model.safetensors")
    forget(folder / "config.json")
    return folder


def forget(config: Path) -> None:
    """Take out of a configuration what it says of its weights, as their change on purpose needs."""
    values = json.loads(config.read_text())
    dropped = ("weights_sample", "weights_id", "codebook_id")
    config.write_text(json.dumps({name: value for name, value in values.items() if name not in dropped}))


def same_weights(model: VQGAN, leaves: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, leaves[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("write", "kind", "pixel_range"),
    [
        (as_flax, "vqgan-jax", (0.0, 1.0)),
        (as_taming, "taming", (-1.0, 1.0)),
        (as_min_dalle, "min-dalle", (0.0, 1.0)),
        (as_ours, "vqbeam", (0.0, 1.0)),
    ],
)
def test_each_format_is_reported_apart_and_brings_its_pixel_range(
    write: Writer, kind: str, pixel_range: tuple[float, float], tmp_path: Path
) -> None:
    leaves = weights()
    write(tmp_path, leaves)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.format, checkpoint.config.pixel_range) == (kind, pixel_range)
    assert same_weights(load_vqgan(tmp_path), leaves)
    assert load_vqgan(tmp_path, pixel_range=(-2, 2)).config.pixel_range == (-2, 2)


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (as_flax, "flax_model.msgpack"),
        (as_flax, "config.json"),
        (as_taming, "last.ckpt"),
        (as_min_dalle, "detoker_mini.pt"),
        (as_ours, "model.safetensors"),
    ],
)
def test_a_checkpoint_can_be_named_by_its_file(write: Writer, file: str, tmp_path: Path) -> None:
    leaves = weights()
    write(tmp_path, leaves)
    assert same_weights(load_vqgan(tmp_path / file), leaves)


def test_a_log_folder_of_taming_is_read(tmp_path: Path) -> None:
    leaves = weights()
    write_taming(tmp_path / "checkpoints", leaves, TINY)
    (tmp_path / "checkpoints" / "model.yaml").unlink()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "2021-04-23T18-11-19-project.yaml").write_text(taming_yaml(TINY))
    assert same_weights(load_vqgan(tmp_path), leaves)


def test_a_gumbel_model_takes_the_code_of_the_largest_logit(tmp_path: Path) -> None:
    leaves = weights(TINY_GUMBEL)
    model = load_vqgan(write_taming(tmp_path, leaves, TINY_GUMBEL))
    assert model.config.quantizer == "gumbel"
    latents = torch.randn(2, 8, 8, 4)
    logits = torch.nn.functional.conv2d(
        latents.permute(0, 3, 1, 2), leaves["quantize.proj.weight"], leaves["quantize.proj.bias"]
    )
    assert torch.equal(model.codes(latents), logits.argmax(1).flatten(1))
    assert torch.equal(model.embed(torch.tensor([[3] * 64]))[0, 0, 0], leaves["quantize.embed.weight"][3])


def test_weights_are_read_from_half_precision_files_as_float32(tmp_path: Path) -> None:
    leaves = weights()
    as_flax(tmp_path, {name: leaf.to(torch.bfloat16) for name, leaf in leaves.items()})
    model = load_vqgan(tmp_path)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.decoder.conv_in.weight, leaves["decoder.conv_in.weight"].to(torch.bfloat16).float())


@pytest.mark.parametrize("write", [as_flax, as_taming, as_ours])
def test_a_missing_an_extra_and_a_misshapen_weight_are_named(write: Writer, tmp_path: Path) -> None:
    leaves = weights()
    del leaves["encoder.conv_in.bias"]
    leaves["encoder.surplus.bias"] = torch.zeros(3)
    leaves["decoder.conv_out.bias"] = torch.zeros(4)
    write(tmp_path, leaves)
    with pytest.raises(CheckpointError) as raised:
        load_vqgan(tmp_path)
    message = str(raised.value)
    assert "missing: encoder.conv_in.bias;" in message
    assert "extra: encoder.surplus.bias;" in message
    assert "misshapen: decoder.conv_out.bias is [4], not [3]" in message


def test_many_missing_weights_are_counted(tmp_path: Path) -> None:
    leaves = {name: leaf for name, leaf in weights().items() if not name.startswith("encoder.")}
    with pytest.raises(CheckpointError, match=r"missing: encoder\.conv_in\.weight, .* and \d\d more"):
        load_vqgan(as_flax(tmp_path, leaves))


@pytest.mark.parametrize(
    ("write", "file"),
    [(as_flax, "flax_model.msgpack"), (as_taming, "last.ckpt"), (as_ours, "model.safetensors")],
)
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_cut_short_is_named(write: Writer, file: str, share: float, tmp_path: Path) -> None:
    path = write(tmp_path, weights()) / file
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=f"{file}: .*cut short"):
        load_vqgan(tmp_path)


@pytest.mark.parametrize("option", [{"resamp_with_conv": False}, {"give_pre_end": True}, {"double_z": True}])
def test_an_option_that_changes_the_network_is_refused(option: dict[str, bool], tmp_path: Path) -> None:
    as_flax(tmp_path, weights())
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, **option}))
    (name,) = option
    with pytest.raises(ConfigError, match=rf"config\.json: .*{name}=.* is not supported"):
        load_vqgan(tmp_path)


def test_vqgan_jax_leaves_out_a_codebook_size_of_1024(tmp_path: Path) -> None:
    as_flax(tmp_path, weights(replace(TINY, n_embed=1024)))
    values = json.loads((tmp_path / "config.json").read_text())
    del values["n_embed"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_vqgan(tmp_path).config.n_embed == 1024


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no VQGAN checkpoint here.*found nothing"),
        ({"readme.txt": "x"}, "no VQGAN checkpoint here.*found readme.txt"),
        ({"flax_model.msgpack": "x"}, r"no config\.json beside it"),
        ({"flax_model.msgpack": "x", "config.json": "{"}, r"config\.json: not JSON"),
        ({"flax_model.msgpack": "x", "config.json": "[]"}, r"config\.json: not a JSON object"),
        ({"flax_model.msgpack": "x", "config.json": '{"model_type": "dallebart"}'}, "describes no VQGAN.*dallebart"),
        ({"model.safetensors": "x"}, "not a safetensors file, or cut short"),
        ({"model.safetensors": "x", "config.json": '{"a": 1}'}, "not a safetensors file, or cut short"),
        (
            {"model.safetensors": "x", "config.json": '{"model_type": "clip", "architectures": ["CLIPModel"]}'},
            r"this is a CLIPModel of transformers, which vqbeam does not read\. Expected .* given as clip",
        ),
        ({"pytorch_model.bin": "x", "config.json": '{"architectures": ["BertModel"]}'}, "a BertModel of transformers"),
        ({"x.safetensors": "x", "config.json": '{"_class_name": "VQModel"}'}, "a VQModel of diffusers"),
        ({"last.ckpt": "x"}, r"last\.ckpt: no \.yaml beside it"),
        ({"last.ckpt": "x", "model.yaml": "a: b"}, r"last\.ckpt: no \.yaml beside it"),
        ({"last.ckpt": "x", "model.yaml": "a: ["}, r"model\.yaml: not YAML"),
        ({"last.ckpt": "x", "model.yaml": "model: {target: x}"}, r"model\.yaml: has no model\.params\.ddconfig"),
        ({"a.ckpt": "x", "b.ckpt": "x"}, r"several checkpoints \(a\.ckpt, b\.ckpt\); name the file"),
        (
            {"last.ckpt": "x", "a.yaml": "model: 1", "b.yaml": "model: 2"},
            r"several configurations \(a\.yaml, b\.yaml\)",
        ),
        ({"detoker.pt": "x"}, r"detoker\.pt: not a PyTorch checkpoint"),
    ],
)
def test_a_folder_without_a_whole_checkpoint_says_what_is_wrong(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("taming.models.vqgan.VQModel", "taming.models.cond_transformer.Net2NetTransformer"), "Net2NetTransformer"),
        (("n_embed: 32", "remap: indices.npy\n    n_embed: 32"), "remap is not supported"),
        (("n_embed: 32", "n_codes: 32"), r"model\.params lacks n_embed"),
    ],
)
def test_a_yaml_of_another_network_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    as_taming(tmp_path, weights())
    text = (tmp_path / "model.yaml").read_text()
    assert change[0] in text
    (tmp_path / "model.yaml").write_text(text.replace(*change))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_of_several_yamls_the_one_named_like_the_weights_is_taken(tmp_path: Path) -> None:
    as_taming(tmp_path, weights())
    (tmp_path / "last.yaml").write_text(taming_yaml(TINY))
    (tmp_path / "model.yaml").write_text(taming_yaml(TINY_GUMBEL))
    assert open_checkpoint(tmp_path).config.quantizer == "nearest"


def test_a_detoker_with_other_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"embedding.weight": torch.zeros(4, 4)}, tmp_path / "detoker.pt")
    with pytest.raises(CheckpointError, match="not the weights of min-dalle's detokenizer"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("write", [as_flax, as_taming, as_min_dalle])
def test_conversion_keeps_weights_provenance_and_pixel_range(write: Writer, tmp_path: Path) -> None:
    leaves = weights()
    source = open_checkpoint(write(tmp_path / "source", leaves))
    written = convert(tmp_path / "source", tmp_path / "own", name="mine")
    assert same_weights(load_vqgan(tmp_path / "own"), leaves)
    assert written.config == source.config
    assert written.name == "mine"
    assert written.has_encoder == source.has_encoder
    assert written.codebook_id() == source.codebook_id() == codebook_id(leaves["quantize.embedding.weight"])
    assert written.weights_id() == source.weights_id()


def test_conversion_keeps_half_precision(tmp_path: Path) -> None:
    as_taming(tmp_path / "source", {name: leaf.half() for name, leaf in weights().items()})
    written = convert(tmp_path / "source", tmp_path / "own")
    assert {leaf.dtype for _, leaf in written.leaves()} == {torch.float16}


def test_a_conversion_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Eight times: the safetensors package orders the metadata of a file at random."""
    as_flax(tmp_path / "source", weights())
    contents = set()
    for n in range(8):
        convert(tmp_path / "source", tmp_path / str(n))
        contents.add(tuple((tmp_path / str(n) / name).read_bytes() for name in ("config.json", "model.safetensors")))
    assert len(contents) == 1
    assert load_file(tmp_path / "0" / "model.safetensors").keys() == weights().keys()


def test_conversion_overwrites_no_model_and_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path / "own", name="tiny")
    as_flax(tmp_path / "source", weights())
    with pytest.raises(CheckpointError, match=r"holds config\.json and model\.safetensors already"):
        convert(tmp_path / "source", tmp_path / "own")
    whole = (tmp_path / "source" / "flax_model.msgpack").read_bytes()
    (tmp_path / "source" / "flax_model.msgpack").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        convert(tmp_path / "source", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_is_saved_in_the_precision_asked_for(tmp_path: Path) -> None:
    model = random_vqgan()
    save_vqgan(model, tmp_path, name="tiny", dtype=torch.float16)
    assert {leaf.dtype for _, leaf in open_checkpoint(tmp_path).leaves()} == {torch.float16}
    assert open_checkpoint(tmp_path).codebook_id() == codebook_id(model.quantize.codebook)
    assert model.decoder.conv_in.weight.dtype == torch.float32


def test_a_decoder_alone_says_that_it_cannot_encode(tmp_path: Path) -> None:
    model = load_vqgan(as_min_dalle(tmp_path, weights()))
    with pytest.raises(ConfigError, match="decoder only"):
        model.encode(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))


def test_weights_beside_the_configuration_of_others_are_noticed(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(seed=1), tmp_path / "a", name="a")
    save_vqgan(random_vqgan(seed=2), tmp_path / "b", name="b")
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_vqgan(tmp_path / "b")


def change(file: Path) -> None:
    """One weight of a safetensors file, all else as it was."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    leaves = load_file(file)
    leaves["decoder.conv_out.bias"] += 0.5
    save_file(leaves, file, metadata)


def test_weights_that_were_changed_beside_the_id_of_the_old_ones_are_noticed(tmp_path: Path) -> None:
    save_vqgan(random_vqgan(), tmp_path, name="a")
    file = tmp_path / "model.safetensors"
    change(file)
    with pytest.raises(CheckpointError, match=r"do not belong together.*take weights_sample, weights_id and codebook"):
        open_checkpoint(tmp_path)


def test_weights_that_were_changed_on_purpose_get_an_id_of_their_own(tmp_path: Path) -> None:
    """As the message of the test above advises."""
    save_vqgan(random_vqgan(), tmp_path / "a", name="a")
    first = open_checkpoint(tmp_path / "a").weights_id()
    change(tmp_path / "a" / "model.safetensors")
    forget(tmp_path / "a" / "config.json")
    written = convert(tmp_path / "a", tmp_path / "b")
    assert written.weights_id() == open_checkpoint(tmp_path / "a").weights_id() != first


@pytest.mark.parametrize(
    ("folder", "kind"), [(".", checkpoints.MODEL_TYPE), ("dalle_bart", bart_checkpoints.MODEL_TYPE)]
)
def test_the_embedded_models_carry_the_id_of_their_weights_and_what_vouches_for_it(folder: str, kind: str) -> None:
    stored = own_format.read_config(EMBEDDED["emoji"] / folder, kind)
    assert stored is not None
    assert own_format.SAMPLE in stored
    weights_file = EMBEDDED["emoji"] / folder / own_format.WEIGHTS_NAME
    assert stored["weights_id"] == weights_id(own_format.read_weights(weights_file))


def test_changed_weights_are_noticed_in_a_file_that_is_larger_than_what_is_sampled(tmp_path: Path) -> None:
    own_format.write_model(tmp_path, {"a": torch.zeros(5 << 20)}, {"model_type": "vqbeam-test", "weights_id": "1"})
    assert own_format.read_config(tmp_path, "vqbeam-test") is not None
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5_000_000:-4_900_000] = bytes([1]) * 100_000
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="do not belong together"):
        own_format.read_config(tmp_path, "vqbeam-test")


def test_the_codebook_id_is_that_of_the_float16_bytes() -> None:
    codebook = torch.tensor([[1.0, -2.0], [0.5, 65504.0]])
    import hashlib

    expected = hashlib.sha256(bytes.fromhex("003c00c00038ff7b")).hexdigest()
    assert codebook_id(codebook) == codebook_id(codebook.half()) == codebook_id(codebook.T.contiguous().T) == expected


def test_the_weights_id_changes_with_any_value_and_not_with_the_order(tmp_path: Path) -> None:
    leaves = weights()
    first = open_checkpoint(as_flax(tmp_path / "a", leaves)).weights_id()
    assert open_checkpoint(as_taming(tmp_path / "b", dict(reversed(leaves.items())))).weights_id() == first
    leaves["decoder.conv_out.bias"][2] += 1e-6
    assert open_checkpoint(as_flax(tmp_path / "c", leaves)).weights_id() != first


def test_a_model_is_called_after_its_folder_or_its_name_on_the_hub(tmp_path: Path) -> None:
    as_flax(tmp_path / "my_vqgan", weights())
    as_flax(tmp_path / "models--me--vqgan" / "snapshots" / ("a" * 40), weights())
    assert open_checkpoint(tmp_path / "my_vqgan").name == "my_vqgan"
    assert open_checkpoint(tmp_path / "models--me--vqgan" / "snapshots" / ("a" * 40)).name == "me/vqgan"


def test_halves_that_differ_and_codes_of_signs_survive_conversion(tmp_path: Path) -> None:
    """As other families have them; none of the weights is a codebook."""
    config = VQGANConfig(
        ch=32,
        resolution=16,
        z_channels=3,
        embed_dim=3,
        n_embed=8,
        quantizer="signs",
        middle_attention=False,
        encoder_levels=(LevelShape(32, 2, False), LevelShape(96, 1, True)),
        decoder_levels=(LevelShape(64, 1, False), LevelShape(32, 3, False)),
    )
    model = random_vqgan(config)
    save_vqgan(model, tmp_path / "a", name="signs")
    converted = convert(tmp_path / "a", tmp_path / "b")
    assert converted.config == config
    assert converted.codebook_id() == open_checkpoint(tmp_path / "a").codebook_id()
    images = torch.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).to(torch.uint8)
    codes = converted.network().encode(images)
    assert torch.equal(codes, model.encode(images))
    assert codes.max() < 8
    assert converted.network().decode(codes).shape == (2, 16, 16, 3)
    found = geometry({name: tuple(value.shape) for name, value in random_vqgan().state_dict().items()}, 16, tmp_path)
    assert found == replace(TINY, pixel_range=(0.0, 1.0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["Emu3VQVAE"], "transformers_version": "5"}, r"this is a Emu3VQVAE of transformers, which"),
        (
            {"_class_name": "AutoencoderKL"},
            r"this is a AutoencoderKL of diffusers, which vqbeam does not",
        ),
        (
            {"embed_dim": 4},
            r"its weights \(encoder\.strange\.weight\) are of no other model that vqbeam",
        ),
    ],
)
def test_a_tokenizer_that_is_not_read_is_named(config: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"encoder.strange.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(tmp_path)
