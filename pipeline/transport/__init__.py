"""How messages and pixels move: credit links over ZeroMQ, slots in shared memory, an in-memory double."""
