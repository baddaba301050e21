"""One run as a process of its own, and all runs of a command: what is kept, who is at work, how far it is."""
