"""The version of this project, in its one place; every row of results names it."""

__version__ = "0.2.0"
