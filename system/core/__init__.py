"""Pure functions: the plan, seeds, masks, warps, targets, losses and schedules. No I/O, no clock, no global state."""
