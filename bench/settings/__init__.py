"""What a run is: RunConfig with every default, and the protocols with their TOML files."""
