"""SP-Net."""

from spnet.methods.spnet.auxiliary import AuxiliaryModule, momentum_update
from spnet.methods.spnet.method import PRESETS, SPNet, SPNetConfig, evolution_readings

__all__ = ["PRESETS", "AuxiliaryModule", "SPNet", "SPNetConfig", "evolution_readings", "momentum_update"]
