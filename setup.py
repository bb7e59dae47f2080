"""Package metadata of vqbeam; tool settings are in pyproject.toml, the versions CI runs in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="vqbeam",
    version="0.1.0",
    description="Bulk VQGAN encoding and text-to-image generation as Apache Beam pipelines",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["pipelines", "transforms*", "models*", "vqbeam"]), "models.emoji"],
    package_data={
        "vqbeam": ["py.typed"],
        "models.emoji": ["*.json", "*.safetensors", "README.md", "dalle_bart/*", "clip/*"],
    },
    entry_points={"console_scripts": ["vqbeam = pipelines.__main__:main"]},
    install_requires=[
        "apache-beam>=2.65,<3",
        "torch>=2.6",
        "pyarrow>=17",
        "scipy>=1.11",  # Beam's RunInference goes without features where it is missing
        "numpy>=1.26",
        "fsspec>=2024.6",
        "gcsfs>=2025.7",
        "huggingface_hub>=0.30",
        "pillow>=10.3",
        "safetensors>=0.5",
        "filelock>=3.13",
        "pyyaml>=6.0",
        "braceexpand>=0.1.7",
        "urllib3>=2.2",
        "tqdm>=4.66",
        "transformers>=4.57",  # CLIP
        "tokenizers>=0.21",
        "ftfy>=6.1",
        "Unidecode>=1.3",
        "emoji>=2.14",
    ],
    extras_require={
        "gcp": ["apache-beam[gcp]"],
        "jax": ["jax", "flax", "transformers>=4.57,<5"],
        "cpu": ["numba>=0.61"],  # large models on a CPU: models/bart/compiled
        "test": [
            "pytest>=8",
            "pytest-timeout",
            "pandas",
            "datasets",
            "msgpack",
            "duckdb",
            "webdataset",
            "gcp-storage-emulator",
            "ruff",
            "mypy",
            "types-PyYAML",
            "types-tqdm",
            "build",
        ],
        "bench": ["diffusers", "min-dalle==0.4.11", "numba>=0.61"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
