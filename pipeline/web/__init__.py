"""The HTTP service: pictures in, tags, objects and classes out. Needs the extra ``web``."""
