"""Opens the card in a process of its own, by CUDA's driver alone: run by its path, before runs share the card.

It prints two words: the UUID of the first visible card, and whether the multi-process service (MPS) serves it (``yes``,
``no``, or ``unknown`` to an old driver). A process keeps to the way in which it has opened a card, so the command must
not do this itself.
"""

import ctypes
import sys
import uuid
from typing import Any

_MPS_ENABLED = 133  # CU_DEVICE_ATTRIBUTE_MPS_ENABLED: contexts on this device go through MPS


def opened(cuda: Any) -> tuple[str, str]:
    """Return the UUID of the first visible card and whether MPS serves it, once a context on it has been made.

    Args:
        cuda: CUDA's driver (libcuda), loaded.
    Raises:
        OSError: the driver refuses, in its own words.
    """
    device, context, served = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_int()
    ident = (ctypes.c_ubyte * 16)()
    _ask(cuda, "cuInit", 0)
    _ask(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    _ask(cuda, "cuDeviceGetUuid_v2", ctypes.byref(ident), device)
    _ask(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    told = cuda.cuDeviceGetAttribute(ctypes.byref(served), _MPS_ENABLED, device) == 0
    return f"GPU-{uuid.UUID(bytes=bytes(ident))}", ("yes" if served.value else "no") if told else "unknown"


def _ask(cuda: Any, name: str, *arguments: Any) -> None:
    if code := getattr(cuda, name)(*arguments):
        words = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(words))
        raise OSError(f"{name}: {(words.value or b'unknown error').decode()} (CUDA error {code})")


if __name__ == "__main__":
    try:
        card, mps = opened(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        sys.exit(str(error))
    print(card, mps)
