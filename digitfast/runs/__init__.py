"""A training that is kept: its folder, settings and checkpoints."""
