"""Pure functions of arrays: box geometry, NMS, letterbox, planes to tensor, drawing. No I/O, no clock."""
