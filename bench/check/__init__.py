"""What ``python -m bench.check`` asks of a plugin; the tests ask the same of every registered one.

It promises that each question names what is wrong and what would be right, and that one broken answer does not keep
the others from being asked. ``algorithm``, ``backbone`` and ``dataset`` each return the questions of their kind.
"""
