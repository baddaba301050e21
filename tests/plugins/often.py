"""Registers nothing, but has checkpoints written fifty times a second, so that a run of a second has many."""

import bench.training.train

bench.training.train.CHECKPOINT_EVERY_S = 0.02
