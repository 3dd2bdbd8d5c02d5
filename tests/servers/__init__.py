"""Real servers and fault tools that the tests of live cameras use; all of them on loopback only."""
