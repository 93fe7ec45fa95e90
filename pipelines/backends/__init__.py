"""The adapters, one a file, each behind its port. Imported lazily, by `pipelines/runtime` alone."""
