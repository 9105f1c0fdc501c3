"""Published peaks of accelerators, for a cost that is to be known before the machine is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UTILISATION = 0.1
"""Share of the peak that is assumed where nothing is said: an assumption, not a measurement."""


Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Device:
    """Peak FLOP/s in float32 without tensor cores, which the loop computes in by itself, and in bfloat16 with them
    (dense, sums in float32); `memory` in bytes."""

    name: str
    flops: float
    bf16: float
    memory: int
    source: str

    def peak(self, precision: Precision) -> float:
        return self.flops if precision == "float32" else self.bf16

    def told(self, precision: Precision) -> str:
        """The peak and its source in words."""
        name = "FP32" if precision == "float32" else "BF16"
        return f"{self.source}: {name} {self.peak(precision) / 1e12:g} TFLOPS"


_GB = 10**9
DEVICES = {
    device.name: device
    for device in (
        Device("A100-40GB", 19.5e12, 312e12, 40 * _GB, "NVIDIA A100 datasheet (SXM)"),
        Device("A100", 19.5e12, 312e12, 80 * _GB, "NVIDIA A100 datasheet (SXM, 80 GB)"),
        Device("H100", 67e12, 989e12, 80 * _GB, "NVIDIA H100 datasheet (SXM)"),
        Device("H200", 67e12, 989e12, 141 * _GB, "NVIDIA H200 datasheet (SXM)"),
        Device("L4", 30.3e12, 121e12, 24 * _GB, "NVIDIA L4 datasheet"),
        Device("L40S", 91.6e12, 362e12, 48 * _GB, "NVIDIA L40S datasheet"),
        Device("RTX4090", 82.6e12, 165.2e12, 24 * _GB, "NVIDIA Ada GPU architecture whitepaper"),
    )
}
