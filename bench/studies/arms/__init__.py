"""What studies share that compare named arms: cells of runs, accuracies, paired differences, how to read them."""
