"""Everything that people read: tables, summary.md, pictures, report.html, the terminal's table, exports."""
