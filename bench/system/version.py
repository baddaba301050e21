"""The version of this project, in its one place; every row of results names it."""

__version__ = "0.2.0"

RESULTS = 3
"""Raised with each change of the harness that changes a result: runs of another are not compared with these.

1: up to 0.2.0. 2: batch normalisation on a CPU sums in blocks. 3: tasks are held at once by what a
network keeps of an image, which moves the rounding of other networks than conv4 on small images.
"""
