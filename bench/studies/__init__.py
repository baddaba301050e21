"""Questions that take many runs: a study is one file or folder here, which ``--study`` and ``--list`` import.

``study.py`` is the contract. ``axes.py`` and ``arms`` hold what several studies share.
"""
