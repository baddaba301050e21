"""Meta-learning algorithms, one file each; every file here is imported and may register."""
