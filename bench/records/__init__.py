"""What a run leaves: the row that is the CSV schema, a run's folder read and written, intervals of numbers."""
