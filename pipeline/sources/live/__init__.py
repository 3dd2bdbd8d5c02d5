"""Live sources: cameras and streams that break, come back, and are worth only their newest picture."""
