"""Execution by onnxruntime: a network becomes a graph that really skips. Needs the extra `onnx`.

structure           what a module computes: the operators it calls
fragment            its nodes, by `direct` and `operators` at once, by `exporter` through torch.onnx
passes, linear      rewritings of graphs that make them fast
parts               a network taken apart into modules
walk, forms         the way through them: a branch for one image, gathered rows for many
decide, decisions   from router logits to decisions
network             one model per form
quantise, int8      8 bits: the tools that calibrate; a dynamic network cut out of one quantised graph
blocked             onnxruntime's own layout kept across branches and gathers
library, sessions   onnxruntime itself; sessions and workers that services can share
executor, ran       sessions at work; what they put out, as a trace
service             what `Engine` asks
forcing, agreement  forced decisions; the comparison with the eager network
cascade             several networks as one graph
"""
