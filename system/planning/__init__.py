"""What a run will take before it is started: measured on the user's data, reckoned for the machines of its recipe."""
