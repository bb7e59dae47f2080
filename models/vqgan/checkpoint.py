"""Open a VQGAN checkpoint of any known format, load it, and save it as our own (`config.json` + `model.safetensors`).

Formats: vqgan-jax folders, taming `.ckpt` + `.yaml`, min-dalle `detoker.pt` (a decoder only), and ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, ConfigError
from models.image_tokenizer import ImageTokenizer, PixelRange, TokenizerOptions, TokenizerSpec
from models.vqgan import names
from models.vqgan.config import EMU3, HIGH_SIGNS, SIGNS, TAMING, VQGANConfig
from models.vqgan.taming import find_taming, read_taming_config
from models.weights import flax, native, pickled
from models.weights.checkpoint import Checkpoint, codebook_id, detect, leaves_of, weights_id
from models.weights.native import CONFIG_NAME, WEIGHTS_NAME, configured, folder_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.tokenizer_network import TokenizerNetwork

EXPECTED = (
    "no VQGAN checkpoint here. Expected config.json with model.safetensors (vqbeam) or flax_model.msgpack (vqgan-jax), "
    "a .ckpt with a .yaml beside it (taming), detoker.pt (min-dalle), a .pt of LlamaGen, the folder of a Janus, "
    "transformers' folder of a Chameleon, a VQModel of diffusers, the folder of Show-o's MAGVITv2, "
    "an IBQ of SEED-Voken or Emu3.5, an LFQ of Open-MAGVIT2, the file of MaskGIT's VQGAN in 1d-tokenizer, or the "
    "folder of an Emu3"
)
BACKENDS = ("torch", "vqgan-jax")
FOLDER = "vqgan"  # in a folder of several models
MODEL_TYPE = "vqbeam-vqgan"  # marks a config.json as written by `save_vqgan`
GRID = 16  # min-dalle decodes 16 x 16 codes; no weight says so
VQGAN_JAX_DEFAULTS = {"n_embed": 1024}  # vqgan-jax's own defaults that differ from ours


@dataclass(frozen=True, kw_only=True)
class VQGANCheckpoint(Checkpoint["TokenizerNetwork"]):
    """A VQGAN of which only the configuration has been read: see `Checkpoint`.

    `format` is "vqbeam", "vqgan-jax", "taming" or "min-dalle".
    """

    config: VQGANConfig
    has_encoder: bool = True
    has_decoder: bool = True
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> TokenizerSpec:
        return self.config.spec(
            name=self.name, format=self.format, has_encoder=self.has_encoder, has_decoder=self.has_decoder
        )

    def builder(self) -> Callable[[], TokenizerNetwork]:
        from models.vqgan.convolutions import ConvolutionalVQ
        from models.vqgan.network import VQGAN

        built: Callable[..., TokenizerNetwork] = VQGAN if self.config.network == TAMING else ConvolutionalVQ
        if self.config.network == EMU3:
            from models.vqgan.emu3_network import Emu3VQ, their_class

            built = partial(Emu3VQ, theirs=their_class())
        return partial(built, self.config, encoder=self.has_encoder, decoder=self.has_decoder)

    def under(self, options: TokenizerOptions) -> VQGANCheckpoint:
        """The same as `options` say, but for the weights. Raises `ConfigError` for an image size that cannot be."""
        config, choices = self.config, dict(self.choices)
        if options.pixel_range is not None:
            config = replace(config, pixel_range=options.pixel_range)
        if options.preprocessing is not None:
            config = replace(config, preprocessing=options.preprocessing)
        if options.image_size is not None:
            if options.image_size % config.factor:
                raise ConfigError(
                    f"image_size {options.image_size}: {self.name} takes images with sides in multiples of "
                    f"{config.factor}"
                )
            config, choices["image_size"] = config.at(options.image_size), options.image_size
        return replace(self, config=config, choices=choices)

    def convert(self, folder: Path, name: str | None = None) -> VQGANCheckpoint:
        """See `TokenizerCheckpoint`; dtype kept, peak memory is the weights and their largest leaf."""
        native.refuse_taken(folder)
        _write(self, folder, name or self.name)
        return open_checkpoint(folder)

    def load(self, *, backend: str = "torch", **settings: Any) -> ImageTokenizer:
        """See `TokenizerCheckpoint`; `backend` is "torch", or "vqgan-jax" for the network of that package."""
        if backend not in BACKENDS:
            raise ConfigError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}")
        if backend == "vqgan-jax":
            plain = (
                self.config.network == TAMING
                and not self.config.encoder_levels
                and self.config.middle_attention
                and self.has_decoder
            )
            if self.config.quantizer not in ("nearest", "gumbel") or not plain:
                raise ConfigError(f"backend vqgan-jax: has no network for {self.name} ({self.format}); use torch")
            from models.vqgan.jax_codec import JaxCodec

            settings.pop("convolutions", None)
            return JaxCodec(self.config, self.spec, self.checked_leaves(), **settings)
        from models.vqgan.codec import TorchCodec

        return TorchCodec(self.network(), name=self.name, **settings)

    def codebook_id(self) -> str:
        """The fingerprint of the codebook: as `convert` stored it, else computed."""
        stored = self.stored.get("codebook_id")
        if stored:
            return str(stored)
        name = _codebook_name(self.config)
        rows = next((leaf for found, leaf in self.leaves() if found == name), None)
        if rows is None:
            raise CheckpointError(f"{self.path}: the weights do not fit the configuration; missing: {name}")
        return _codebook_id(self.config, {name: rows})

    def network(self) -> TokenizerNetwork:
        """See `Checkpoint`. Raises `CheckpointError` if the codebook is not the one that `convert` stored."""
        model = super().network()
        stored = self.stored.get("codebook_id")
        if stored and stored != _codebook_id(self.config, model.state_dict()):
            raise CheckpointError(
                f"{self.path}: config.json and model.safetensors do not belong together; copy both again"
            )
        return model


def find(path: Path) -> Path | None:
    """The folder or file to give to `open_checkpoint`, None if there is no VQGAN.

    In a folder, `vqgan/` comes before the folder itself. If neither has weights, a folder `vqgan/` is returned all the
    same: `open_checkpoint` reports what it lacks.
    """
    if path.is_file():
        return path
    named = path / FOLDER
    return next((folder for folder in (named, path) if _is_vqgan(folder)), named if named.is_dir() else None)


def _is_vqgan(folder: Path) -> bool:
    known = any(folder.glob("detoker*.pt")) or flax.describes(folder, "ch_mult")
    return known or (folder.is_dir() and find_taming(folder) is not None)


def open_checkpoint(path: Path | str, options: TokenizerOptions | None = None) -> VQGANCheckpoint:
    """Detect the format of a folder or file and read its configuration.

    `options.pixel_range` overrides what the format implies: [0, 1] for vqgan-jax and min-dalle, [-1, 1] for taming, and
    what is stored for ours. Raises `CheckpointError`, or `ConfigError` for an option that is not supported.
    """
    options = options or TokenizerOptions()
    opened = detect(
        Path(path),
        (_open_ours, _open_vqgan_jax),
        (_open_min_dalle, _open_taming),
        EXPECTED,
    )
    if options.weights not in (None, opened.choices.get("weights")):
        raise ConfigError(f"{path}: holds one set of weights; leave weights out")
    return opened.under(options)


def save_vqgan(model: TokenizerNetwork, folder: Path | str, *, name: str, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `model.safetensors` (in `dtype`, by default that of each weight) into `folder`."""
    checkpoint = VQGANCheckpoint(
        path=Path(folder),
        format="vqbeam",
        name=name,
        config=model.config,
        has_encoder=model.has_encoder,
        files=(),
        leaves=partial(leaves_of, model, dtype),
    )
    _write(checkpoint, Path(folder), name)


def convert(
    source: Path | str, folder: Path | str, *, pixel_range: PixelRange | None = None, name: str | None = None
) -> VQGANCheckpoint:
    """Write any checkpoint that `open_checkpoint` knows as our own.

    Raises `CheckpointError` if `folder` holds a model already.
    """
    native.refuse_taken(Path(folder))
    return open_checkpoint(source, TokenizerOptions(pixel_range)).convert(Path(folder), name)


def _write(checkpoint: VQGANCheckpoint, folder: Path, name: str) -> None:
    weights = dict(checkpoint.checked_leaves())
    values = {
        "model_type": MODEL_TYPE,
        "name": name,
        "converted_from": checkpoint.format,
        "has_encoder": checkpoint.has_encoder,
        **({} if checkpoint.has_decoder else {"has_decoder": False}),
        **({"weights": checkpoint.choices["weights"]} if "weights" in checkpoint.choices else {}),
        "codebook_id": _codebook_id(checkpoint.config, weights),
        **checkpoint.config.to_dict(),
        "weights_id": weights_id(weights.items()),
    }
    native.write_model(folder, weights, values)


def _codebook_name(config: VQGANConfig) -> str:
    """The weight that says what codes mean: that with a row a code, or the first that reads codes that are signs."""
    if config.quantizer in (SIGNS, HIGH_SIGNS):
        return "post_quant_conv.weight" if config.network == TAMING else "decoder.conv_in.weight"
    return "quantize.embed.weight" if config.quantizer == "gumbel" else "quantize.embedding.weight"


def _codebook_id(config: VQGANConfig, weights: Mapping[str, Tensor]) -> str:
    """See `codebook_id`; with signs, of their rule, too: every model of so many bits has the same vectors."""
    found = codebook_id(weights[_codebook_name(config)])
    signs = config.quantizer in (SIGNS, HIGH_SIGNS)
    return hashlib.sha256(f"{config.quantizer} {found}".encode()).hexdigest() if signs else found


def _open_ours(folder: Path) -> VQGANCheckpoint | None:
    stored = native.read_config(folder, MODEL_TYPE)
    if stored is None:
        return None
    weights = folder / WEIGHTS_NAME
    return VQGANCheckpoint(
        path=folder,
        format="vqbeam",
        name=str(stored.get("name") or folder_name(folder)),
        config=configured(VQGANConfig.from_dict, stored, folder / CONFIG_NAME),
        has_encoder=bool(stored.get("has_encoder", True)),
        has_decoder=bool(stored.get("has_decoder", True)),
        choices={"weights": stored["weights"]} if "weights" in stored else {},
        files=(weights,),
        leaves=partial(native.read_weights, weights),
        stored=stored,
    )


def _open_vqgan_jax(folder: Path) -> VQGANCheckpoint | None:
    files, values = flax.read_folder(folder, "VQGAN", "ch_mult")
    if not files:
        return None
    return VQGANCheckpoint(
        path=folder,
        format="vqgan-jax",
        name=folder_name(folder),
        config=configured(VQGANConfig.from_dict, {**VQGAN_JAX_DEFAULTS, **values}, folder / CONFIG_NAME),
        files=tuple(files),
        leaves=lambda: (names.from_flax(*leaf) for file in files for leaf in flax.read_leaves(file)),
        mapped=False,
    )


def _open_taming(path: Path) -> VQGANCheckpoint | None:
    found = find_taming(path)
    if found is None:
        return None
    weights, config_path = found

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for name, leaf in pickled.read_state(weights).items():
            if not name.startswith("loss."):  # of training; our names of the others are taming's
                yield name, leaf

    return VQGANCheckpoint(
        path=weights,
        format="taming",
        name=folder_name(config_path.parent),
        config=configured(VQGANConfig.from_dict, read_taming_config(config_path), config_path),
        files=(weights,),
        leaves=leaves,
    )


def _open_min_dalle(path: Path) -> VQGANCheckpoint | None:
    """`detoker.pt`, as `detoker_mini.pt` in the flat folder of the hub, or under `vqgan/` as in min-dalle's cache."""
    if path.is_dir():
        found = sorted(path.glob("detoker*.pt")) or sorted(path.glob("vqgan/detoker*.pt"))
    else:
        found = [path] if path.name.startswith("detoker") and path.suffix == ".pt" else []
    if not found:
        return None
    weights = found[0]

    def leaves() -> Iterator[tuple[str, Tensor]]:
        for name, leaf in pickled.read_state(weights).items():
            yield names.from_min_dalle(name), leaf

    return VQGANCheckpoint(
        path=weights,
        format="min-dalle",
        name="min-dalle",
        config=infer_geometry({name: tuple(leaf.shape) for name, leaf in leaves()}, weights),
        has_encoder=False,
        files=(weights,),
        leaves=leaves,
    )


def infer_geometry(shapes: Mapping[str, tuple[int, ...]], path: Path) -> VQGANConfig:
    """The configuration of a decoder whose weights (under our names) have these shapes; pixels are in [0, 1].

    Raises `CheckpointError` that names `path` if they are not those of a VQGAN decoder.
    """
    try:
        levels = 1 + max(int(found[1]) for name in shapes if (found := re.match(r"decoder\.up\.(\d+)\.", name)))
        ch = shapes["decoder.conv_out.weight"][1]
        widths = [shapes[f"decoder.up.{i}.block.0.conv1.weight"][0] for i in range(levels)]
        blocks = sum(bool(re.fullmatch(r"decoder\.up\.0\.block\.\d+\.conv1\.weight", name)) for name in shapes)
        z_channels, embed_dim = shapes["post_quant_conv.weight"][:2]
        n_embed = shapes["quantize.embedding.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: these are not the weights of min-dalle's detokenizer ({error})") from error
    resolution = GRID * 2 ** (levels - 1)
    attention = tuple(resolution // 2**i for i in range(levels) if f"decoder.up.{i}.attn.0.q.weight" in shapes)
    try:
        return VQGANConfig(
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=blocks - 1,
            attn_resolutions=attention,
            resolution=resolution,
            z_channels=z_channels,
            embed_dim=embed_dim,
            n_embed=n_embed,
            pixel_range=(0.0, 1.0),
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
