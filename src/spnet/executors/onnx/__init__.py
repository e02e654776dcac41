"""Execution by onnxruntime: a network becomes a graph that really skips. Needs the extra `onnx`.

graph, layers, blocks, routers   pieces of a network as ONNX nodes
network                          the walk over a network: one model per form
blocked                          onnxruntime's own layout kept across branches and gathers
runtime, executor                sessions, workers, traces
forcing, agreement               forced decisions; the comparison with the eager network
"""
