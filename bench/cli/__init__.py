"""The command line: flags, configuration files, the plan of a command, and the small commands.

It promises that wrong usage is one line, before anything is trained, and that what a command did can be asked for
again by the ``config.toml`` that it leaves. ``compare.compare`` is the same from Python.
"""
