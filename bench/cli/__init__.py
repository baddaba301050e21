"""The command line: flags, configuration files, the plan of a command, and the small commands."""
