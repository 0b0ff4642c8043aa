"""The accelerators that are known by name: how fast they multiply by their makers' data sheets.

A data sheet's rates with sparsity are halved: nothing here is sparse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind of accelerator.

    Attributes:
        name: what a user calls it.
        device: the part of the device's name, as its driver says it, that tells it from all others below it.
        peak_flops: dense bf16 matrix products with sums in float32, FLOP/s; of fp16 where it has no bf16.
        source: where that figure stands.
        bf16: whether it multiplies bf16.
    """

    name: str
    device: str
    peak_flops: float
    source: str
    bf16: bool = True


# A kind comes before those whose `device` is a part of its own.
ACCELERATORS = (
    Accelerator("b200", "B200", 2250e12, "NVIDIA HGX B200 data sheet"),
    Accelerator("h200", "H200", 989e12, "NVIDIA H200 data sheet, SXM"),
    Accelerator("h100-pcie", "H100 PCIe", 756e12, "NVIDIA H100 data sheet, PCIe"),
    Accelerator("h100-nvl", "H100 NVL", 835e12, "NVIDIA H100 data sheet, NVL"),
    Accelerator("h100", "H100", 989e12, "NVIDIA H100 data sheet, SXM"),
    Accelerator("a100", "A100", 312e12, "NVIDIA A100 80 GB data sheet"),
    Accelerator("l40s", "L40S", 362e12, "NVIDIA L40S data sheet"),
    Accelerator("l4", "L4", 121e12, "NVIDIA L4 data sheet"),
    Accelerator("a10g", "A10G", 70e12, "NVIDIA A10G, as in Amazon EC2 G5"),
    Accelerator("v100", "V100", 125e12, "NVIDIA V100 data sheet", bf16=False),
)


def accelerator_of(device_name: str) -> Accelerator | None:
    """Return what a driver's name stands for, or None if it is not known."""
    for each in ACCELERATORS:
        if re.search(rf"\b{each.device}\b", device_name):
            return each
    return None


def peak_flops(device_name: str) -> float | None:
    """Return a device's peak rate, or None if it is not known."""
    found = accelerator_of(device_name)
    return found.peak_flops if found else None
