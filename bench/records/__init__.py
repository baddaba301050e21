"""What a run leaves: its row, which is the CSV schema (``columns``), and its folder read and written (``run``).

It promises that a record is written whole, that a damaged one is refused with a reason, and that older records can be
read. ``frame`` makes typed frames of rows; ``intervals`` has the confidence interval of a list of numbers.
"""
