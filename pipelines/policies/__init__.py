"""Pure rules: a report in, a decision with its reasons out. Nothing here reads a file, a clock or a setting."""
