"""What follows from records: ``results.load`` makes one frozen ``Results`` of a folder of runs.

It promises that every statistic and every verdict is worked out here and nowhere else, and that runs are compared only
where they answered the same test tasks. ``outcomes`` has all that may be said of a comparison.
"""
