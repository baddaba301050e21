"""Figures that answer: specifications for plotly.js by subject, which report.html draws."""
