# SPDX-License-Identifier: MIT
"""One file per library: NAMES maps what the command line calls it to module and class, imported in its worker only."""

from __future__ import annotations

import importlib

from peers.rivals.base import Rival

OURS = "headwise"
NAMES = {
    OURS: ("headwise", "Headwise"),
    "torch": ("pytorch", "Torch"),
    "onnxruntime": ("onnx_runtime", "OnnxRuntime"),
    "openvino": ("open_vino", "OpenVino"),
    "ggml": ("ggml", "Ggml"),
}
TITLES = {OURS: "headwise", "torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ggml": "ggml"}

# Storage types that a rival may take instead, if that is faster: none is less exact or, but for f32, larger.
INSTEAD = {"f32": [], "bf16": ["f16", "f32"], "f16": ["f32"], "q8": []}


def make(name: str, threads: int, paths: dict[str, str]) -> Rival:
    """`paths`: where the libraries loaded through ctypes are. Throws ImportError or OSError where one is missing."""
    module, cls = NAMES[name]
    rival = getattr(importlib.import_module(f"peers.rivals.{module}"), cls)
    return rival(threads, paths[name]) if name in paths else rival(threads)
