"""From data to identical tasks: a counter of random bits, streams, images and their prepared cache, download.

It promises that task i of a stream is the same for every algorithm, on every machine and in whatever order tasks are
asked for. ``stream.TaskStream`` draws them, ``data.load_data`` finds the data; plugins need ``ImageSet`` alone.
"""

import sys

from bench.tasks.images import ImageSet

__all__ = ["ImageSet"]

sys.modules["bench.images"] = sys.modules[__name__]  # its name in version 0.1, which plugins may still use
