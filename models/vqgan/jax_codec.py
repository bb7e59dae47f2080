"""`--backend vqgan-jax`: the `vqgan-jax` package's own network behind the interface of `models/vqgan/codec.py`.

For TPUs, and for comparison. The package is not on PyPI; it is imported only when this backend is used.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from models.devices import FASTEST
from models.errors import ConfigError
from models.image_tokenizer import TokenizerSpec
from models.vqgan import names as vqgan_names
from models.vqgan.config import VQGANConfig
from models.weights.checks import Leaves

INSTALL = 'pip install "vqbeam[jax]" git+https://github.com/patil-suraj/vqgan-jax'
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest", "float16": "highest"}
CONFIG_FIELDS = (
    "ch", "out_ch", "in_channels", "num_res_blocks", "resolution", "z_channels", "ch_mult", "attn_resolutions",
    "n_embed", "embed_dim",
)  # fmt: skip


def packages() -> tuple[Any, Any]:
    """`jax`, and the network of `vqgan-jax`. Raises `ConfigError` with how to install what is missing."""
    try:
        import jax
        from vqgan_jax.modeling_flax_vqgan import VQModel
    except ImportError as error:
        raise ConfigError(f"backend vqgan-jax: {error}. Install it with: {INSTALL}") from error
    return jax, VQModel


class JaxCodec:
    """`vqgan_jax.modeling_flax_vqgan.VQModel`, compiled once for one padded batch shape.

    The batch is spread over all local devices (`device` "auto") or those of one platform ("cpu", "gpu", "tpu"), each
    with a copy of the weights; `batch_size` is rounded up to a multiple of their number. `threads` are left to jax. The
    quantiser is float32 for any `dtype`. Any checkpoint format works: names and layouts are converted to the package's.
    """

    def __init__(
        self,
        config: VQGANConfig,
        spec: TokenizerSpec,
        leaves: Leaves,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        jax, VQModel = packages()
        if config.quantizer != "nearest":
            raise ConfigError(f"backend vqgan-jax: has no {config.quantizer} quantiser; use the torch backend")
        self.spec = spec
        devices = _devices(jax, device)
        on_cpu = devices[0].platform == "cpu"
        self.dtype = _resolve_dtype(dtype, on_cpu)
        wanted = batch_size or self.spec.batch_size("cpu" if on_cpu else "cuda") * len(devices)
        self.batch_size = -(-wanted // len(devices)) * len(devices)
        self._lock = threading.Lock()
        mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
        self._rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._put = jax.device_put
        weights = _flax_tree(leaves)
        self.codebook: np.ndarray = weights["quantize"]["embedding"]["embedding"]
        self._weights = jax.device_put(weights, whole)
        self._encode, self._decode = _compiled(VQModel.module_class, config, self.dtype)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`."""
        self.spec.check_images(images, self.batch_size)
        return self._run(self._encode, images)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """See `ImageTokenizer`."""
        self.spec.check_codes(codes, self.batch_size)
        return self._run(self._decode, codes.astype(np.int32))

    def _run(self, function: Any, rows: np.ndarray) -> np.ndarray:
        padded = np.zeros((self.batch_size, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        with self._lock:
            return np.asarray(function(self._weights, self._put(padded, self._rows)))[: len(rows)]


def _devices(jax: Any, device: str) -> list[Any]:
    """The local devices of jax, or those of one platform."""
    if device == "auto":
        return list(jax.local_devices())
    platform = {"cuda": "gpu"}.get(device, device)
    try:
        return list(jax.local_devices(backend=platform))
    except RuntimeError as error:
        raise ConfigError(
            f"device {device!r} with backend vqgan-jax: expected auto, cpu, gpu or tpu ({error})"
        ) from error


def _resolve_dtype(dtype: str, on_cpu: bool) -> str:
    if dtype in ("auto", FASTEST):
        return "float32" if on_cpu else "bfloat16"
    if dtype not in PRECISIONS:
        raise ConfigError(f"dtype {dtype!r}: expected auto, {', '.join(PRECISIONS)}")
    return dtype


def _flax_tree(leaves: Leaves) -> dict[str, Any]:
    """The weights as the package nests them, float32 numpy arrays."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves:
        path, value = vqgan_names.to_flax(name, leaf.float())
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value.numpy()
    return tree


def _compiled(module_class: Any, config: VQGANConfig, dtype: str) -> tuple[Any, Any]:
    """The package's encode and decode between uint8 images and int32 codes, the network in `dtype`."""
    import jax
    import jax.numpy as jnp
    from vqgan_jax.configuration_vqgan import VQGANConfig as TheirConfig

    theirs = TheirConfig(**{name: getattr(config, name) for name in CONFIG_FIELDS})
    precise = module_class(config=theirs, dtype=jnp.float32)
    network = module_class(
        config=theirs, dtype={"bfloat16": jnp.bfloat16, "float16": jnp.float16}.get(dtype, jnp.float32)
    )
    low, high = config.pixel_range

    @jax.jit
    def encode(weights: Any, images: Any) -> Any:
        pixels = images.astype(jnp.float32) * ((high - low) / 255.0) + low
        with jax.default_matmul_precision(PRECISIONS[dtype]):
            hidden = network.apply({"params": weights}, pixels, method=lambda module, x: module.encoder(x))
        with jax.default_matmul_precision("highest"):
            _, codes = precise.apply(
                {"params": weights},
                hidden.astype(jnp.float32),
                method=lambda module, x: module.quantize(module.quant_conv(x)),
            )
        return codes.astype(jnp.int32)

    @jax.jit
    def decode(weights: Any, codes: Any) -> Any:
        with jax.default_matmul_precision(PRECISIONS[dtype]):
            pixels = network.apply({"params": weights}, codes, method=network.decode_code).astype(jnp.float32)
        return jnp.round(jnp.clip((pixels - low) * (255.0 / (high - low)), 0.0, 255.0)).astype(jnp.uint8)

    return encode, decode
