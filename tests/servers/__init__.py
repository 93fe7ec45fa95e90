"""Real servers that tests start on loopback, in temporary folders, and stop by their own process."""
