"""Measurements: one script a stage, ours and a named peer in the same run. `make bench` runs them all."""
