"""What a healthy challenger's measurements look like, for tests of other gates."""

from __future__ import annotations

from pipelines.records import DataAudit, SanityChecks, ServedAgainstFp32

SANITY = SanityChecks(
    distinct=96,
    same=0.02,
    outside=0,
    sensitivity={"x": 0.1},
    invariance={"column_order": 0.0, "batch_size": 0.0, "graph": 1e-7},
    seen_metric=0.7,
    collapse=0.02,
)
FP32 = ServedAgainstFp32(speed_ratio=1.3, latency_ratios={1: 1.0, 4096: 0.8}, size_ratio=0.4, more_bytes=-100_000)
DATA = DataAudit(partitions=30)
HEALTHY = {"sanity": SANITY, "fp32": FP32, "data": DATA}
