"""What ``python -m bench.check`` asks of a plugin; the tests ask the same of every registered one."""
