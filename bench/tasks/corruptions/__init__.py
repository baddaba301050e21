"""Corruptions of test images, one a file; a new one is a new file, nothing else edited."""
