"""The processor of this machine, as Linux describes it."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def described() -> dict[str, str]:
    """The last processor; empty on other systems."""
    if not CPUINFO.exists():
        return {}
    lines = [line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def flags() -> set[str]:
    return set(described().get("flags", "").split())


def multiplies_bfloat16() -> bool:
    """Whether torch's products and convolutions are faster in bfloat16 than in float32.

    They are with Intel's AMX, and with AMD's AVX512_BF16 (2.2 times on Zen 4). Intel's AVX512_BF16 has 0.6 of the
    float32 products a second (Emerald Rapids), and without such a unit bfloat16 takes three times as long or more.
    """
    found = flags()
    return "amx_bf16" in found or ("avx512_bf16" in found and described().get("vendor_id") == "AuthenticAMD")


def multiplies_float16() -> bool:
    """Whether torch's products and convolutions may be faster in float16 than in float32.

    With Intel's AVX512_FP16 they take 1.2 to 1.6 times as long (Emerald Rapids, the embedded model and f16). The same
    processor told to be one without takes six to ten times as long. AMX for it, of newer ones, was not measured.
    """
    return "amx_fp16" in flags()
