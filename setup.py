"""Package metadata of vqbeam; tool settings are in pyproject.toml, the versions CI runs in constraints.txt.

The lowest versions are tested by `make test-oldest`, the newest by `make test-newest`: see docs/contributing.md.
"""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
from deploy.links import below, relinked  # noqa: E402  builds do not look here

# The address of the repository's files, for links of the README in a package index: without it they are plain text.
REPOSITORY = os.environ.get("VQBEAM_REPOSITORY", "")

setup(
    name="vqbeam",
    version="0.1.0",
    description="Bulk VQGAN encoding and text-to-image generation as Apache Beam pipelines",
    long_description=relinked((ROOT / "README.md").read_text(encoding="utf-8"), below(REPOSITORY)),
    long_description_content_type="text/markdown",
    keywords="vqgan image-tokenizer text-to-image dalle-mini apache-beam webdataset parquet datasets",
    project_urls={"Source": REPOSITORY} if REPOSITORY else {},
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["pipelines", "transforms*", "models*", "vqbeam"]), "models.emoji"],
    package_data={
        "vqbeam": ["py.typed"],
        "transforms.report": ["page.*"],
        "models.emoji": ["*.json", "*.safetensors", "README.md", "dalle_bart/*", "clip/*"],
    },
    entry_points={"console_scripts": ["vqbeam = pipelines.__main__:main"]},
    install_requires=[
        "apache-beam>=2.66,<3",
        "torch>=2.6",
        "pyarrow>=17",
        "scipy>=1.11",  # Beam's RunInference goes without features where it is missing
        "numpy>=1.26",
        "fsspec>=2025.7",
        "gcsfs>=2025.7",
        "huggingface_hub>=0.34",
        "pillow>=11.0",
        "safetensors>=0.5",
        "filelock>=3.13",
        "pyyaml>=6.0",
        "braceexpand>=0.1.7",
        "urllib3>=2.2",
        "tqdm>=4.66",
        "argcomplete>=3.5",
        "jinja2>=3.1",
        "transformers>=4.57",  # CLIP, Emu3
        "tokenizers>=0.22",
        "ftfy>=6.1",
        "Unidecode>=1.3.6",  # before, fractions came out with other spaces: other words for the model
        "emoji>=2.14",
    ],
    extras_require={
        "gcp": ["apache-beam[gcp]"],
        "s3": ["s3fs>=2025.7"],
        "dask": ["apache-beam[dask]"],
        "jax": ["jax>=0.4.35", "flax>=0.10", "transformers>=4.57,<5"],
        # large models on a CPU: models/bart/compiled, models/winograd; images: transforms/compiled_resampling.py
        "numba": ["numba>=0.61"],
        "metrics": ["prometheus_client>=0.20"],
        "wandb": ["wandb>=0.21"],
        "tensorboard": ["tensorboard>=2.18"],
        "test": [
            "hypothesis>=6.100",
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "pandas>=2.2",
            "msgpack>=1.1",
            "duckdb>=1.3",
            "webdataset>=0.2.100",
            "gcp-storage-emulator>=2026.7.18",
            "s3fs>=2025.7",
            "moto[s3]>=5.2",
            "flask>=3.1",  # with flask-cors, what moto's server needs for S3; [server] would bring twenty others
            "flask-cors>=5.0",
            "google-cloud-dataflow-client>=0.8.17",  # what describes a job of Dataflow; [gcp] would bring thirty others
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "prometheus_client>=0.20",
            "tensorboard>=2.18",
            "wandb>=0.21",
        ],
        "test-datasets": ["datasets>=4.1"],  # apart: it needs pyarrow 21, so Beam 2.72, and would hide what is older
        "dev": [
            "ruff>=0.17",
            "mypy>=2.4",
            "types-PyYAML>=6.0",
            "types-tqdm>=4.70",
            "build>=1.6",
            "mkdocs-material>=9.7",
        ],
        "bench": ["diffusers>=0.35", "min-dalle==0.4.11", "numba>=0.61"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
