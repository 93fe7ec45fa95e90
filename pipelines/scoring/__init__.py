"""Batch scoring: features in, scores out, by the served ONNX artifact.

engine    tiles of rows, in parallel, in bounded memory
cut       the registered graph behind its string encoders
encode    text to codes in Polars, as those encoders do
session   one graph on ONNX Runtime, the same bytes for any tile and any thread count
cores     how many threads this machine, or this container, has for us
"""
