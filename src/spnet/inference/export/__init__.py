"""Networks as files that run without spnet; each verified against the eager network before it is kept."""

from spnet.inference.export.cascade_file import ExportedCascade, export_cascade
from spnet.inference.export.int8_file import export_int8
from spnet.inference.export.onnx_file import Exported, export_onnx, parse_path
from spnet.inference.export.reader import open_export
from spnet.inference.export.stages import ExportedStages, export_stages

__all__ = [
    "Exported",
    "ExportedCascade",
    "ExportedStages",
    "export_cascade",
    "export_int8",
    "export_onnx",
    "export_stages",
    "open_export",
    "parse_path",
]
