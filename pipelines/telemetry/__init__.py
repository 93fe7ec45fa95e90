"""What is watched, as numbers that monitoring systems collect."""
