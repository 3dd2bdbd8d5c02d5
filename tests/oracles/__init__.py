"""Reference implementations: each model's published preprocessing and decoding, in plain loops.

On purpose nothing here comes from ``pipeline``: what both sides find alike, they find alike for reasons of
their own. A file says which published code it follows; none is copied. Pictures are scaled with OpenCV's
bilinear filter unless the file says otherwise.
"""
