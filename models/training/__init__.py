"""From samples to trained weights: what is run, the loop, checkpoints and metrics."""
