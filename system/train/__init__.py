"""Training: engines, checkpoints, the loop, and how a run is started and kept going."""
