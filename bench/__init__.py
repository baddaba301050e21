"""The benchmark harness: streams, measuring, evaluation, records; it knows no algorithm by name."""
