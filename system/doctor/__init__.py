"""What may be wrong with a machine, with videos and with a cluster, before a run finds out."""
