"""A network over stacked weights: T sets of weights at once, one per task, no loop over tasks.

``build`` makes a run's task loss, a ``model.Classifier``, and its initial slow weights. Each task gets what it would
get alone, exact to second order, whatever ``nn.Module`` the network is; sequences of the usual layers run fast.
Backbones import ``layers``, which imports nothing else of this wing.
"""
