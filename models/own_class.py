"""Image tokenizers that users write: a class, named by its module or by an entry point, behind our protocols.

The class is called with the `Path` of the model's files and the `TokenizerOptions`. What it makes has

- `spec`: a `TokenizerSpec`;
- `codebook`, `encode` and `decode`, as in `ImageTokenizer`, for any number of images up to the size of a batch;
- `fingerprint()`: a text that is another if codes or images may be others;
- `load(device, dtype)` if it wants: called once in each process before the first batch.

Every process imports the class by its name, so that nothing of it is pickled.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from models.devices import resolve_device, resolve_dtype, set_torch_state
from models.errors import ConfigError, ModelError
from models.image_tokenizer import TokenizerOptions, TokenizerSpec

GROUP = "vqbeam.tokenizers"  # of entry points
FORM = "package.module:Class"
NUMBERS: Mapping[Callable[[Any], float], tuple[str, ...]] = {
    int: ("resolution", "factor", "codebook_size"),
    float: ("flops", "image_bytes"),
}


def open_own(path: Path, options: TokenizerOptions) -> OwnCheckpoint:
    """The tokenizer that the class `options.tokenizer` makes of the files in `path`.

    Raises `ConfigError` if the class cannot be imported, lacks something, or does not do what `options` ask for.
    """
    asked = str(options.tokenizer)
    name, made = _imported(asked)
    if options.weights is not None:
        raise ConfigError(f"tokenizer {asked}: chooses its weights itself; leave weights out")
    try:
        tokenizer = made(path, options)
        given = getattr(tokenizer, "spec", None)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # users' code raises what it likes
        raise ConfigError(f"tokenizer {asked}: cannot open {path}: {type(error).__name__}: {error}") from error
    _check_members(asked, tokenizer, given)
    opened = OwnCheckpoint(name, tokenizer, _spec(asked, given), _choices(name, options))
    for option, has in (("pixel_range", opened.spec.pixel_range), ("image_size", opened.spec.resolution)):
        wanted = getattr(options, option)
        if wanted not in (None, has):
            raise ConfigError(f"tokenizer {asked}: its spec says {has}, not the {option} {wanted}; leave {option} out")
    return opened


def _imported(asked: str) -> tuple[str, Callable[[Path, TokenizerOptions], Any]]:
    """The class and its full name, for that name or the name of an entry point. Raises `ConfigError`."""
    name = asked
    if ":" not in asked:
        registered = {entry.name: entry.value for entry in entry_points(group=GROUP)}
        if asked not in registered:
            known = ", ".join(sorted(registered)) or "none"
            raise ConfigError(f"tokenizer {asked!r}: expected {FORM}, or an entry point of {GROUP} ({known} installed)")
        name = registered[asked].partition("[")[0].strip()
    module, _, attributes = name.partition(":")
    try:
        found: Any = import_module(module)
    except Exception as error:
        raise ConfigError(
            f"tokenizer {asked}: cannot import {module} ({type(error).__name__}: {error}); it has to be installed, or "
            "in a folder of PYTHONPATH, on every machine that works"
        ) from error
    for attribute in attributes.split("."):
        found = getattr(found, attribute, None)
    if not callable(found):
        raise ConfigError(f"tokenizer {asked}: {module} has no class {attributes}")
    return name, found


def _check_members(asked: str, tokenizer: Any, spec: Any) -> None:
    methods = ["fingerprint"]
    methods += ["encode"] if getattr(spec, "has_encoder", True) else []
    methods += ["decode"] if getattr(spec, "has_decoder", True) else []
    absent = [f"{name}()" for name in methods if not callable(getattr(tokenizer, name, None))]
    known = {*dir(type(tokenizer)), *getattr(tokenizer, "__dict__", ())}  # a codebook may be costly to compute
    absent += [name for name in ("spec", "codebook") if name not in known]
    if absent:
        raise ConfigError(f"tokenizer {asked}: lacks {', '.join(absent)}")


def _spec(asked: str, given: Any) -> TokenizerSpec:
    """A checked copy of plain numbers: programs may know our classes by two names, and plans are JSON."""
    try:
        values = {field.name: getattr(given, field.name) for field in fields(TokenizerSpec)}
    except AttributeError as error:
        raise ConfigError(f"tokenizer {asked}: its spec is no TokenizerSpec ({error})") from error
    try:
        for kind, names in NUMBERS.items():
            values |= {name: kind(values[name]) for name in names}
        low, high = (float(value) for value in values["pixel_range"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tokenizer {asked}: its spec has a number that is none ({error})") from error
    spec = TokenizerSpec(**{**values, "pixel_range": (low, high)})
    small = [name for names in NUMBERS.values() for name in names if not values[name] > 0]
    if small:
        raise ConfigError(f"tokenizer {asked}: its spec says {small[0]} {values[small[0]]}; expected more than 0")
    if spec.resolution % spec.factor:
        raise ConfigError(
            f"tokenizer {asked}: its spec says images of {spec.resolution} pixels a side, no multiple of the factor "
            f"{spec.factor}"
        )
    return replace(spec, has_latents=False, any_grid=False)


def _choices(name: str, options: TokenizerOptions) -> dict[str, Any]:
    choices: dict[str, Any] = {"tokenizer": name}
    if options.image_size is not None:
        choices["image_size"] = options.image_size
    if options.pixel_range is not None:
        choices["pixel_range_given"] = True
    return choices


@dataclass(frozen=True)
class OwnCheckpoint:
    """See `TokenizerCheckpoint`. `name` is that of the class, which is part of all fingerprints."""

    name: str
    tokenizer: Any
    spec: TokenizerSpec
    choices: Mapping[str, Any]

    def weights_id(self) -> str:
        """See `TokenizerCheckpoint`. Raises `ConfigError` unless the class gives a text."""
        said = self.tokenizer.fingerprint()
        if not isinstance(said, str) or not said:
            raise ConfigError(f"tokenizer {self.name}: fingerprint() gave {said!r}; expected a text that is not empty")
        return hashlib.sha256(f"{self.name} {said}".encode()).hexdigest()

    def codebook_id(self) -> str:
        """The codes mean what this class makes of them, with these weights."""
        return self.weights_id()

    def load(
        self,
        *,
        backend: str = "torch",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        convolutions: str = "auto",
    ) -> OwnTokenizer:
        """See `TokenizerCheckpoint`; `threads` are torch's, if the class uses it."""
        if backend != "torch":
            raise ConfigError(f"backend {backend}: tokenizer {self.name} has one of its own; leave it out")
        device = resolve_device(device)
        if hasattr(self.tokenizer, "load"):
            self.tokenizer.load(device, resolve_dtype(dtype, device))
        batch_size = batch_size or self.spec.batch_size(device)
        return OwnTokenizer(self.name, self.tokenizer, self.spec, batch_size, device, threads)

    def convert(self, folder: Path, name: str | None = None) -> NoReturn:
        """Raises `ConfigError`: the class alone knows its files."""
        raise ConfigError(f"tokenizer {self.name}: reads files of its own, which are not converted")


class OwnTokenizer:
    """See `ImageTokenizer`. Checks all that the class returns; its batches are full, so rows do not depend on others.

    Raises `ConfigError` for results that are none.
    """

    def __init__(
        self, name: str, tokenizer: Any, spec: TokenizerSpec, batch_size: int, device: str, threads: int | None
    ) -> None:
        self.spec = spec
        self.batch_size = batch_size
        self._name = name
        self._tokenizer = tokenizer
        self._device = device
        self._threads = threads
        self._lock = threading.Lock()

    @cached_property
    def codebook(self) -> np.ndarray:
        """See `ImageTokenizer`."""
        found = np.asarray(self._tokenizer.codebook)
        if found.ndim != 2 or len(found) != self.spec.codebook_size or found.dtype.kind not in "fiu":
            wanted = f"numbers [{self.spec.codebook_size}, D]"
            self._refuse(f"codebook is {found.dtype} {list(found.shape)}; expected {wanted}")
        return found.astype(np.float32)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`."""
        self.spec.check_images(images, self.batch_size)
        codes = self._full_batch("encode", images)
        grid = (images.shape[1] // self.spec.factor, images.shape[2] // self.spec.factor)
        flat = (self.batch_size, grid[0] * grid[1])
        if codes.dtype.kind not in "iu" or codes.shape not in (flat, (self.batch_size, *grid)):
            wanted = f"integers {list(flat)} or {[self.batch_size, *grid]}"
            self._refuse(f"encode() gave {codes.dtype} {list(codes.shape)}; expected {wanted}")
        codes = codes.reshape(flat)
        if not 0 <= codes.min() <= codes.max() < self.spec.codebook_size:
            found = f"from {codes.min()} to {codes.max()}"
            self._refuse(f"encode() gave codes {found}; the codebook has {self.spec.codebook_size}")
        return codes[: len(images)].astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`."""
        self.spec.check_codes(codes, self.batch_size)
        images = self._full_batch("decode", codes)
        shape = (self.batch_size, self.spec.resolution, self.spec.resolution, 3)
        if images.dtype != np.uint8 or images.shape != shape:
            self._refuse(f"decode() gave {images.dtype} {list(images.shape)}; expected uint8 {list(shape)}")
        return images[: len(codes)]

    def _full_batch(self, method: str, rows: np.ndarray) -> np.ndarray:
        """What a method makes of the rows and of zeros that fill the batch."""
        padded = np.zeros((self.batch_size, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        with self._lock:
            if self._threads and "torch" in sys.modules:
                set_torch_state(sys.modules["torch"].device(self._device), self._threads)
            return np.asarray(getattr(self._tokenizer, method)(padded))

    def _refuse(self, problem: str) -> NoReturn:
        raise ConfigError(f"tokenizer {self._name}: {problem}")
