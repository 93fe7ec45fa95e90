"""The parts of an erasure; `pipelines.steps.erasure` is the step that puts them together."""
