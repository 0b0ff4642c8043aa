"""A run under fire: a local cluster whose processes are killed, a store that fails, videos that are damaged."""
