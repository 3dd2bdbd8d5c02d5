"""Work on the graph of a model: pixels in, few rows out, float16, int8. All of it needs the package onnx."""
