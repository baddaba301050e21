"""The speed comparison: this project beside its peers on the same work."""
