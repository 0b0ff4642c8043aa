"""What a pre-trained encoder has learned: features, probes, fine-tuning, and what a mask gives away."""
