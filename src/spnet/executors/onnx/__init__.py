"""Execution by onnxruntime: a network becomes a graph that really skips. Needs the extra `onnx`.

structure, fragment, passes       any module as ONNX nodes, made by torch.onnx
parts                             a network taken apart into modules
linear, decide, decisions         from routers to decisions
network                          the walk over a network: one model per form
blocked                          onnxruntime's own layout kept across branches and gathers
runtime, executor                sessions, workers, traces
forcing, agreement               forced decisions; the comparison with the eager network
"""
