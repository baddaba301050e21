"""A network over stacked weights, one set per task, and its kernels."""
