"""What the command line does, as thin functions: train, evaluate, calibrate, export."""

from spnet.door.calibration import calibrate
from spnet.door.evaluation import evaluate
from spnet.door.exporting import export
from spnet.door.training import config_of, train

__all__ = ["calibrate", "config_of", "evaluate", "export", "train"]
