"""The figures the paper's supplement gives, for the column marked "paper". ResNet-110; accuracy in percent.

Its costs are printed as GMACC but can only be GFLOPs (2 per multiply-add): ResNet-110 in full has 0.2529 GMACs, so
0.40 is 79 % and 0.46 is 91 % of the static network.
"""

BLOCKS = 54
"""Residual blocks of the paper's ResNet-110."""

TABLE1: dict[tuple[str, float], str] = {
    ("alpha", 0.6): "94.32 at 0.46",
    ("alpha", 0.8): "94.67 at 0.46",
    ("alpha", 1.0): "95.22 at 0.46",
    ("alpha", 1.2): "94.75 at 0.47",
    ("beta", 0.1): "93.49 at 0.44",
    ("beta", 0.3): "94.76 at 0.46",
    ("beta", 0.5): "95.22 at 0.46",
    ("beta", 0.7): "95.03 at 0.45",
    ("gamma", 1e-5): "95.06 at 0.46",
    ("gamma", 1e-4): "95.22 at 0.46",
    ("gamma", 1e-3): "94.33 at 0.42",
    ("gamma", 1e-2): "93.59 at 0.38",
}

TABLE2: dict[tuple[str, str], str] = {
    ("cifar10", "convnet-aig"): "94.22 ± 0.11 at 0.40",
    ("cifar10", "skipnet"): "93.86 ± 0.07 at 0.40",
    ("cifar10", "codinet"): "94.35 ± 0.13 at 0.40",
    ("cifar10", "spnet"): "95.09 ± 0.04 at 0.40",
    ("cifar100", "convnet-aig"): "72.86 ± 0.17 at 0.40",
    ("cifar100", "skipnet"): "72.41 ± 0.12 at 0.40",
    ("cifar100", "codinet"): "74.13 ± 0.26 at 0.40",
    ("cifar100", "spnet"): "75.02 ± 0.06 at 0.40",
}

TABLE3: dict[tuple[str, str], str] = {
    ("cifar10", "convnet-aig"): "94.24 -> 94.97 (+0.73)",
    ("cifar10", "codinet"): "94.47 -> 94.96 (+0.49)",
    ("cifar10", "rdi-net"): "95.10 -> 95.16 (+0.06)",
    ("cifar100", "convnet-aig"): "72.90 -> 74.92 (+2.02)",
    ("cifar100", "codinet"): "72.90 -> 74.18 (+1.28)",
    ("cifar100", "rdi-net"): "74.31 -> 74.77 (+0.46)",
}

EVOLUTION_ALONE: dict[str, str] = {
    "cifar10": "94.96 at 0.46, 91 % of static",
    "cifar100": "74.94 at 0.46, 91 % of static",
}
"""Supplement A: feature evolution without multi-stage classification."""
