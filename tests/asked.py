"""What a study is asked for."""

from bench.studies.study import Request

THREE = ("reptile", "fomaml", "maml")


def asked(**changes):
    return Request(**{"algos": THREE, "dataset": "glyphs", "device": "cpu", "threads": 1} | changes)
