"""Everything that people read: tables, summary.md, pictures, report.html, the terminal's table, exports.

It promises that each output is a function of ``Results`` in a file of its own, that the same runs give the same bytes,
and that nothing is computed here that ``analysis`` could say. ``write.write_report`` makes all of a folder;
``outputs`` is the one table.
"""
