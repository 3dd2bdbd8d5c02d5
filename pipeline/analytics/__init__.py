"""State without I/O and without a clock: what the objects of one source do over time."""
