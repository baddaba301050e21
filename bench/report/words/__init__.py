"""What people read as text: summary.md with its sections, and the table on the terminal."""
