"""Motion sources: frames in, optical flow between sampled frames out."""
