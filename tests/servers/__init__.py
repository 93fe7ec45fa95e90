"""Real servers for tests: each starts on loopback, on free ports, in a folder of its own, and ends with the session."""
