"""``--tune``: an equal search for every algorithm, in trials on meta-validation that no result and no test task sees.

``question`` says what is searched, ``search`` makes the trials, each a process that ``trial`` is the inside of, and
``storage`` alone speaks with Optuna, which need not be installed for anything else. ``preset`` writes what a search
has found as a protocol.
"""
