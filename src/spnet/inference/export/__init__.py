"""Networks as files that run without spnet; each verified against the eager network before it is kept."""

from spnet.inference.export.cascade_file import ExportedCascade, export_cascade
from spnet.inference.export.onnx_file import Exported, export_onnx, parse_path
from spnet.inference.export.reader import open_export

__all__ = ["Exported", "ExportedCascade", "export_cascade", "export_onnx", "open_export", "parse_path"]
