"""Tables for programs, a file each; a file put here is written in every report."""
