"""Kernels in Triton for the stacked layers of a network on a card: few of them, each of much work.

Nothing outside imports from here before ``bench.network.kernels.choose`` has found a card, or Triton interpreting
(``TRITON_INTERPRET=1``): Triton need not be there. Only ``launches`` needs no Triton.
"""
