"""Batch scoring: features in, scores out, by the served ONNX artifact."""
