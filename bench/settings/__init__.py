"""What a run is: ``config.RunConfig`` with every default, and ``protocols`` with their TOML files.

It promises that a value is checked before anything is trained, and that two runs of one ``run_id`` had the same
settings. Algorithms, data sets and networks are named here and never imported.
"""
