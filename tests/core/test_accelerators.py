from __future__ import annotations

from system.core.accelerators import ACCELERATORS, accelerator_of, peak_flops


def test_peak_rates_are_known_by_the_devices_name() -> None:
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA L4") == 121e12
    assert peak_flops("NVIDIA L40") is None
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("Tesla V100-SXM2-16GB") == 125e12
    assert peak_flops("") is None


def test_a_slower_form_of_a_device_is_told_from_the_usual_one() -> None:
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H100 NVL") == 835e12


def test_every_kind_is_found_by_its_own_device_name() -> None:
    for each in ACCELERATORS:
        found = accelerator_of(f"NVIDIA {each.device}")
        assert found is each
