"""report.html: the whole comparison on one page that needs nothing but a browser."""
