"""One run's inside: ``train`` takes one ``metastep`` after another, validates by ``evaluate``, saves a ``checkpoint``.

It promises that a run stopped anywhere goes on to the same bits, that the clock of training counts meta-steps alone,
and that validating more often changes no result. It knows no algorithm by name.
"""
