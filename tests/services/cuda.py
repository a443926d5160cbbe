"""CUDA's driver by its own functions, for nodes of tests that run on a real GPU."""

from __future__ import annotations

#: For the head of a project's source. ``open_device()`` gives the UUIDs that CUDA sees and opens
#: the first; ``take(bytes)`` gives memory of it, for ``give_back``.
CUDA = '''
import ctypes
import uuid

_driver = None

def _call(name, *args):
    code = getattr(_driver, name)(*args)
    if code:
        words = ctypes.c_char_p()
        _driver.cuGetErrorName(code, ctypes.byref(words))
        raise RuntimeError(f"{(words.value or b'').decode()} in {name}")

def initialise():
    global _driver
    _driver = ctypes.CDLL("libcuda.so.1")
    _call("cuInit", 0)

def open_device():
    """In whichever thread: a context is current in one only."""
    initialise()
    count, found = ctypes.c_int(), []
    _call("cuDeviceGetCount", ctypes.byref(count))
    for index in range(count.value):
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        _call("cuDeviceGet", ctypes.byref(device), index)
        _call("cuDeviceGetUuid_v2", ctypes.byref(raw), device)
        found.append(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _call("cuCtxSetCurrent", context)
    return found

def take(size):
    memory = ctypes.c_uint64()
    _call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    return memory

def give_back(memory):
    _call("cuMemFree_v2", memory)
'''
