"""One run's inside: meta-step, capture, chunks, outer rule, evaluation, checkpoint, clocks and memory."""
