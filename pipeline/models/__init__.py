"""Models: sessions that turn tensors into raw outputs, and the store that their files come from."""
