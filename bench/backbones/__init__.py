"""Networks, one file each; every file here is imported and may register.

A network is built from the shape of an input and the number of outputs, and imports no more of the project than a
plugin does: ``bench.api``, ``bench.registry`` and ``bench.network.layers``.
"""
