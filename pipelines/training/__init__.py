"""The torch room: teacher, student, ONNX, int8, baselines. One entry, `pipelines.training.entry.run`."""
