# SPDX-License-Identifier: MIT
"""The functions of ggml that are called, as ggml.h and ggml-cpu.h declare them, without their prefix."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint8, c_uint32, c_void_p


class InitParams(Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class Plan(Structure):
    _fields_ = [
        ("work_size", c_size_t),
        ("work_data", POINTER(c_uint8)),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_data", c_void_p),
        ("use_ref", c_bool),
    ]


class ThreadpoolParams(Structure):
    _fields_ = [
        ("cpumask", c_bool * 512),
        ("n_threads", c_int),
        ("priority", c_int),
        ("poll", c_uint32),
        ("strict_cpu", c_bool),
        ("paused", c_bool),
    ]


SIGNATURES = {
    "base": {
        "init": (c_void_p, [InitParams]),
        "free": (None, [c_void_p]),
        "new_tensor_4d": (c_void_p, [c_void_p, c_int] + [c_int64] * 4),
        "get_data": (c_void_p, [c_void_p]),
        "tensor_overhead": (c_size_t, []),
        "nbytes": (c_size_t, [c_void_p]),
        "row_size": (c_size_t, [c_int, c_int64]),
        "quantize_chunk": (c_size_t, [c_int, POINTER(c_float), c_void_p, c_int64, c_int64, c_int64, c_void_p]),
        "flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
        "mul_mat": (c_void_p, [c_void_p] * 3),
        "soft_max_ext_inplace": (c_void_p, [c_void_p] * 3 + [c_float] * 2),
        "new_graph_custom": (c_void_p, [c_void_p, c_size_t, c_bool]),
        "build_forward_expand": (None, [c_void_p, c_void_p]),
        "threadpool_params_init": (None, [POINTER(ThreadpoolParams), c_int]),
        "version": (c_char_p, []),
    },
    "cpu": {
        "cpu_init": (None, []),
        "graph_plan": (Plan, [c_void_p, c_int, c_void_p]),
        "graph_compute": (c_int, [c_void_p, POINTER(Plan)]),
        "threadpool_new": (c_void_p, [POINTER(ThreadpoolParams)]),
    },
}
