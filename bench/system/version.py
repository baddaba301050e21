"""The version of this project, in its one place; every row of results names it."""

__version__ = "0.2.0"

RESULTS = 2
"""Raised with each change of the harness that changes a result: runs of another are not compared with these.

1: up to 0.2.0. 2: batch normalisation on a CPU sums in blocks.
"""
