"""What pipelines and transforms know of an image tokenizer, and the list of families.

A family is a folder of `models/` and one line in `FAMILIES`. Its module `checkpoint.py` has

- `find(path)`: the folder or file to open in the folder (or file) of a model, by what is in it; None if it holds no
  such tokenizer;
- `open_checkpoint(path, options)`: what `find` found, as a `TokenizerCheckpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from models.devices import gpu_bytes, largest_batch
from models.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

# Folders of `models/`. The first is asked last, and reports what is wrong with a path that no family opens.
FAMILIES = ("vqgan", "llamagen", "chameleon", "diffusers", "showo", "ibq", "maskgit", "emu3")

CPU_BATCH_BYTES = 64 << 20  # of the widest activations in float32: a CPU is no faster with more
MAX_BATCH = 256

CENTER_CROP = "center_crop"  # the preprocessing of dalle-mini's tokenizers

PixelRange = tuple[float, float]


@dataclass(frozen=True)
class TokenizerOptions:
    """What the user says of a tokenizer by name; None for what its checkpoint says, or else its format implies.

    `pixel_range` is as in `TokenizerSpec`, `image_size` the side of its images in pixels. `weights` are "ema",
    averaged, or "raw", where a file holds both. `preprocessing` is as in `TokenizerSpec`. `tokenizer` names a class of
    the user's that opens the files, as `models/own_class.py` says.
    """

    pixel_range: PixelRange | None = None
    image_size: int | None = None
    weights: str | None = None
    preprocessing: str | None = None
    tokenizer: str | None = None

    def check_one_set(self, path: Path) -> None:
        """Raise `ConfigError` if `weights` are chosen of a checkpoint that holds one set."""
        if self.weights is not None:
            raise ConfigError(f"{path}: holds one set of weights; leave weights out")

    def check_size(self, path: Path, why: str, in_use: str) -> None:
        """Raise `ConfigError` if the image size is not given to a checkpoint that does not say it."""
        if self.image_size is None:
            raise ConfigError(f"{path}: {why}: give image_size ({in_use})")


@dataclass(frozen=True)
class TokenizerSpec:
    """The shapes and the costs of a tokenizer, read without its weights.

    `name` is what provenance calls the model, `format` that of its checkpoint. Images have `resolution` pixels a side,
    each code stands for `factor` x `factor` of them, and is one of `codebook_size`. `pixel_range` is what the network
    reads and writes for 0 to 255. With `nearest` a code is the vector of the codebook nearest to a latent; with
    `has_latents` torch's backend loads a `LatentTokenizer`. `preprocessing` is how the family itself makes the square
    of an image, by the names of `ImageOptions.resize`. With `any_grid` torch's backend loads an `AnyGridTokenizer`.
    `flops` is roughly what encoding an image costs, `image_bytes` the size of its widest activations in float32: by
    default those of a small network.
    """

    name: str
    format: str
    resolution: int
    factor: int
    codebook_size: int
    flops: float = 1e9
    image_bytes: float = 4 << 20
    has_encoder: bool = True
    pixel_range: PixelRange = (0.0, 1.0)
    nearest: bool = True
    has_latents: bool = False
    has_decoder: bool = True
    preprocessing: str = CENTER_CROP
    any_grid: bool = False

    @property
    def grid(self) -> int:
        """Codes a side."""
        return self.resolution // self.factor

    @property
    def codes_per_image(self) -> int:
        return self.grid * self.grid

    def batch_size(self, device: str, gpu: int | None = None) -> int:
        """The default for a device: a power of two of images that its memory holds with room to spare.

        `gpu` is the memory of a GPU of another machine, in bytes; None for one of this.
        """
        # On a GPU about eight of the widest activations live at once, and half of the memory stays free.
        budget = (gpu or gpu_bytes(device)) / 16 if device.startswith("cuda") else CPU_BATCH_BYTES
        return largest_batch(self.image_bytes, budget, MAX_BATCH)

    def check_images(self, images: np.ndarray, batch_size: int) -> None:
        """Raise `ValueError` unless `images` is uint8 [n, H, W, 3] that fits the model and the batch.

        Raises `ConfigError` if the model has no encoder.
        """
        if not self.has_encoder:
            raise ConfigError(f"{self.name} holds a decoder only: it can decode codes, not encode images")
        if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % self.factor or images.shape[2] % self.factor:
            raise ValueError(
                f"images must be [n, H, W, 3] with sides in multiples of {self.factor}, not {list(images.shape)}"
            )
        if images.dtype != "uint8":
            raise ValueError(f"images must be uint8, not {images.dtype}")
        if len(images) > batch_size:
            raise ValueError(f"{len(images)} images are more than the batch size of {batch_size}")

    def check_codes(self, codes: np.ndarray, batch_size: int, grid: tuple[int, int] | None = None) -> None:
        """Raise `ValueError` unless `codes` are integers [n, codes_per_image] within the codebook and the batch.

        With `grid` they are those of so many rows and columns.

        Raises `ConfigError` if the model has no decoder.
        """
        if not self.has_decoder:
            raise ConfigError(f"{self.name} holds an encoder only: it can encode images, not decode codes")
        count = self.codes_per_image if grid is None else grid[0] * grid[1]
        if codes.ndim != 2 or codes.shape[1] != count or codes.dtype.kind not in "iu":
            wanted = f"integers [n, {count}]"
            raise ValueError(f"codes must be {wanted}, not {codes.dtype} {list(codes.shape)}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(f"codes must be in [0, {self.codebook_size}), not in [{codes.min()}, {codes.max()}]")
        if len(codes) > batch_size:
            raise ValueError(f"{len(codes)} rows of codes are more than the batch size of {batch_size}")


class ImageTokenizer(Protocol):
    """A running tokenizer. `encode` and `decode` may be called from several threads."""

    batch_size: int

    @property
    def spec(self) -> TokenizerSpec: ...

    @property
    def codebook(self) -> np.ndarray:
        """float32 [codebook_size, D]."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, 3], n <= batch_size -> int32 [n, codes_per_image], raster order."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Integer codes [n, codes_per_image], n <= batch_size -> uint8 [n, H, W, 3]."""


@runtime_checkable
class LatentTokenizer(Protocol):
    """A running tokenizer that also gives the latents between image and codes."""

    def latents(self, images: np.ndarray) -> np.ndarray:
        """Images as for `encode` -> float32 [n, h, w, D]; `quantise` turns them into the codes of `encode`."""

    def quantise(self, latents: np.ndarray) -> np.ndarray:
        """float32 [n, h, w, D], n <= batch_size -> int32 [n, h*w]."""


@runtime_checkable
class AnyGridTokenizer(Protocol):
    """A running tokenizer whose `encode` takes images of any size in multiples of `factor`, [n, h*w] codes each."""

    def decode_grid(self, codes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """As `decode`, for codes [n, h*w] of h rows and w columns."""


class TokenizerCheckpoint(Protocol):
    """A tokenizer whose configuration has been read and whose weights have not."""

    @property
    def spec(self) -> TokenizerSpec: ...

    @property
    def choices(self) -> Mapping[str, Any]:
        """For provenance: the options that are needed to open it once more. JSON-ready."""

    def weights_id(self) -> str:
        """The fingerprint of all weights, which is part of that of a job."""

    def codebook_id(self) -> str:
        """The fingerprint of the meaning of its codes: stored with tokens, and compared before they are decoded."""

    def load(
        self,
        *,
        backend: str = "torch",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        convolutions: str = "auto",
    ) -> ImageTokenizer:
        """The running tokenizer on a device; `convolutions` is as `TorchCodec` has it, if the network is ours.

        Raises `ConfigError` and `CheckpointError`.
        """

    def convert(self, folder: Path, name: str | None = None) -> TokenizerCheckpoint:
        """Write it as `config.json` and `model.safetensors`, and open that. Raises `CheckpointError`."""


def find_tokenizer(path: Path) -> tuple[Any, Path] | None:
    """The module of the first family that opens something in `path`, and what it opens; None if no family does."""
    for family in map(_family, (*FAMILIES[1:], FAMILIES[0])):
        found = family.find(path)
        if found is not None:
            return family, found
    return None


def open_tokenizer(path: Path, options: TokenizerOptions | None = None) -> TokenizerCheckpoint:
    """The tokenizer in a folder or file.

    Raises `CheckpointError` if there is none, or it is broken, and `ConfigError` for an option that is not supported or
    missing.
    """
    family, part = find_tokenizer(path) or (_family(FAMILIES[0]), path)
    opened: TokenizerCheckpoint = family.open_checkpoint(part, options or TokenizerOptions())
    return opened


def _family(folder: str) -> Any:
    return import_module(f"{__package__}.{folder}.checkpoint")
