"""One run as a process, and all runs of a command: ``worker`` makes one from a ``job``, ``runner`` many by ``launch``.

It promises that what has finished is kept, that the same command goes on with what has not, that one process at a time
works on a run, and that every run that was begun leaves a record of how it ended.
"""
