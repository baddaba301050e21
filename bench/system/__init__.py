"""The machine underneath: files written whole, locks, what is not trusted, the terminal, numbers as words."""
