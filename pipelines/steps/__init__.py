"""The steps of a night: one plain function each, records in and records out, ports as arguments, no global state."""
