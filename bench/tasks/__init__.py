"""From data to identical tasks: a counter of random bits, streams, images and their prepared cache, download."""

from bench.tasks.images import ImageSet

__all__ = ["ImageSet"]
