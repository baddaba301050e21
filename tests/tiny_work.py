"""Settings of the speed comparison so small that a test can time them."""

from bench.speed.work import Work

TINY = {
    "S1": Work("S1", 3, 1, 2, inner_steps=2, meta_batch=2, inner_lr=0.4),
    "S4": Work("S4", 2, 1, 3, inner_steps=3, meta_batch=2, inner_lr=1e-3, inner_batch=4, algos=("reptile",)),
}
CASES = [("S1", "maml"), ("S1", "fomaml"), ("S4", "reptile")]
