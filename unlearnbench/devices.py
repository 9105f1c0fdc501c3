"""Published peaks of accelerators, for a cost that is to be known before the machine is there."""

from __future__ import annotations

from dataclasses import dataclass

UTILISATION = 0.1
"""Share of the peak that is assumed where nothing is said: an assumption, not a measurement."""


@dataclass(frozen=True)
class Device:
    """`flops`: peak FLOP/s in float32 without tensor cores, which is what the loop computes in; `memory` in bytes."""

    name: str
    flops: float
    memory: int
    source: str


_GB = 10**9
DEVICES = {
    device.name: device
    for device in (
        Device("A100-40GB", 19.5e12, 40 * _GB, "NVIDIA A100 datasheet (SXM): FP32 19.5 TFLOPS"),
        Device("A100", 19.5e12, 80 * _GB, "NVIDIA A100 datasheet (SXM, 80 GB): FP32 19.5 TFLOPS"),
        Device("H100", 67e12, 80 * _GB, "NVIDIA H100 datasheet (SXM): FP32 67 TFLOPS"),
        Device("H200", 67e12, 141 * _GB, "NVIDIA H200 datasheet (SXM): FP32 67 TFLOPS"),
        Device("L4", 30.3e12, 24 * _GB, "NVIDIA L4 datasheet: FP32 30.3 TFLOPS"),
        Device("L40S", 91.6e12, 48 * _GB, "NVIDIA L40S datasheet: FP32 91.6 TFLOPS"),
        Device("RTX4090", 82.6e12, 24 * _GB, "NVIDIA Ada GPU architecture whitepaper: FP32 82.6 TFLOPS"),
    )
}
