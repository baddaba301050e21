"""What follows from records: arms, comparisons, verdicts, curves, time to accuracy, published values."""
