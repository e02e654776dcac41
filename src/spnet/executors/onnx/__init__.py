"""onnxruntime execution."""
