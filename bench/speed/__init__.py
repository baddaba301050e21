"""The speed comparison: this project beside its peers on the same work (``python -m bench.speed``).

It promises that all variants are timed in turn in the same minutes, and that each has computed the same meta-gradient
before it is timed. Nothing else imports this wing.
"""
