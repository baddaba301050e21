"""The machine underneath: files written whole, locks, what is not trusted, forked processes, the terminal, words.

It promises that a file is there whole or not at all, that what is read is a regular file inside the folder that was
asked for, and that no text from outside is taken for Markdown, HTML, LaTeX or a formula. It knows nothing of learning.
"""
