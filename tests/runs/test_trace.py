"""Phases on traces with answers known beforehand."""

import pytest

from bench.runs.trace import CAPTURED, PHASES, REST, summarise

NODE = "autograd::engine::evaluate_function: "


def event(name, start, end, kind="cpu_op", thread=1, **args):
    names = {"sequence": "Sequence number", "forward": "Fwd thread id", "correlation": "correlation"}
    args = {names[key]: value for key, value in args.items()}
    return {"ph": "X", "name": name, "cat": kind, "ts": start, "dur": end - start, "tid": thread, "args": args}


def window(end):
    return event("bench: meta-steps", 0, end, "user_annotation")


def test_every_microsecond_of_a_known_trace_is_in_its_phase():
    """One MAML step in miniature: a forward pass, a backward pass that makes graph, the query, the outer backward."""
    trace = [
        window(200),
        event("bench: data", 0, 10, "user_annotation"),
        event("aten::index", 2, 8),  # inside data
        event("aten::bmm", 20, 40, sequence=5, forward=0),  # makes node 5
        event(NODE + "BmmBackward0", 50, 70, sequence=5, forward=1),
        event("BmmBackward0", 51, 70, sequence=5, forward=1),
        event("aten::bmm", 52, 62, sequence=6, forward=0),  # makes node 6, inside a backward pass
        event("aten::mul", 70, 75, sequence=7, forward=0),  # the inner update makes node 7
        event("aten::bmm", 80, 90, sequence=8, forward=0),  # the query makes node 8
        event(NODE + "BmmBackward0", 100, 110, sequence=8, forward=1),
        event(NODE + "MulBackward0", 110, 114, sequence=7, forward=1),
        event(NODE + "BmmBackward0", 114, 130, sequence=6, forward=1),  # backward of backward
        event(NODE + "BmmBackward0", 130, 137, sequence=5, forward=1),  # for the second time
        event(NODE + "torch::autograd::AccumulateGrad", 137, 138),
        event("Optimizer.step#Adam.step", 150, 160, "user_annotation"),
        event("aten::add_", 155, 158),
        event("aten::bmm", 300, 400),  # after the window
        {"ph": "i", "name": "an instant", "ts": 3},
    ]
    for events in (trace, trace[::-1]):
        s = summarise(events, 2)
        assert s.total == 200
        assert s.host == {
            "data": 10, "forward": 20 + 5 + 10, "backward": 20 + 10 + 4 + 1, "second order": 16 + 7, "optimizer": 10,
            REST: 200 - 10 - 35 - 35 - 23 - 10,
        }  # fmt: skip
        own = {(c.phase, c.name): (c.calls, c.us) for c in s.operations}
        assert own["forward", "aten::bmm"] == (2, 30)
        assert own["backward", "aten::bmm"] == (1, 10)
        assert own["backward", "BmmBackward0"] == (
            3,
            (20 - 19) + (19 - 10) + 10,
        )  # the range, the node in it, the query's
        assert own["second order", "BmmBackward0"] == (2, 23)
        assert own["optimizer", "aten::add_"] == (1, 3)
        assert not s.device


def test_an_operation_that_makes_no_node_does_not_hide_the_one_that_does():
    """Both carry the number that the next node will have; the last one with it makes the node."""
    trace = [
        window(100),
        event(NODE + "A", 10, 20, sequence=1, forward=1),
        event("aten::view", 12, 13, sequence=4, forward=0),  # in a backward pass, but of no consequence
        event("aten::bmm", 30, 40, sequence=4, forward=0),
        event(NODE + "B", 50, 60, sequence=4, forward=1),
    ]
    assert summarise(trace, 1).host["second order"] == 0


def test_kernels_belong_to_the_phase_that_launched_them_and_idle_is_what_no_kernel_covers():
    def launch(number, start, thread=1, name="cudaLaunchKernel"):
        return event(name, start, start + 1, "cuda_runtime", thread, correlation=number)

    def kernel(number, start, end, kind="kernel", name="gemm"):
        return event(name, start, end, kind, 7, correlation=number)

    trace = [
        window(100),
        event("aten::bmm", 0, 10, sequence=3, forward=0),
        launch(1, 4), kernel(1, 10, 30),
        event(NODE + "BmmBackward0", 20, 30, thread=2, sequence=3, forward=1),
        event("aten::bmm", 21, 28, thread=2, sequence=0, forward=0),  # this thread counts from 0
        launch(2, 22, 2), kernel(2, 30, 50),
        event(NODE + "BmmBackward0", 40, 46, thread=2, sequence=0, forward=2),  # made in that thread: second order
        launch(3, 42, 2), kernel(3, 45, 60),  # overlaps the one before on another stream
        launch(4, 60), kernel(4, 70, 75, "gpu_memcpy", "Memcpy DtoD"),  # from no operation
    ]  # fmt: skip
    s = summarise(trace, 1)
    assert s.device == {"forward": 20, "backward": 20, "second order": 15, REST: 5}
    assert (s.in_kernels, s.in_copies) == (50, 5)
    assert s.host["second order"] == 6
    assert CAPTURED not in s.device
    assert [(k.phase, k.name, k.us) for k in s.kernels][:2] == [("backward", "gemm", 20), ("forward", "gemm", 20)]


def test_a_replayed_graph_has_kernels_and_idle_but_no_phases():
    trace = [
        window(100),
        event("cudaGraphLaunch", 1, 3, "cuda_runtime", correlation=9),
        *(event("gemm", 10 * i, 10 * i + 9, "kernel", 7, correlation=9) for i in range(1, 9)),
    ]
    s = summarise(trace, 4)
    assert s.device == {CAPTURED: 72}
    assert s.in_kernels == 72
    assert s.host == {**dict.fromkeys(PHASES, 0), REST: 100}


def test_a_trace_without_its_range_is_refused():
    with pytest.raises(ValueError, match="the trace holds no 'bench: meta-steps'"):
        summarise([event("aten::bmm", 0, 1)], 1)
