"""Drills: faults in a copy of the landing zone, nights that are played over it, and verdicts."""
