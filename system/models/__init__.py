"""Networks: torch.nn only, one device, no distribution."""
