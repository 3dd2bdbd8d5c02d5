"""How messages and pixels move: links with credits over ZeroMQ, slots in shared memory, an in-memory double."""
