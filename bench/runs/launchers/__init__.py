"""Where the processes of runs are started: ``local`` on this machine, ``ray`` on the nodes of a Ray cluster.

``launcher`` says what one has to offer, and finds it by its name; ``options`` holds the flags. Whichever it is, runs,
their locks and their files under ``--out`` are the same. Nothing of Ray is imported where nobody asks for it.
"""
