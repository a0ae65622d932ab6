"""Compiles kernels.cu to kernels.ptx, which is part of the program. Needs no GPU.

Run: pip install --target nvrtc nvidia-cuda-nvrtc-cu12==12.1.105
     python3 compile.py nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12

PTX of version 12.1 is read by drivers since 530, and compute_70 by GPUs since Volta. The first line of kernels.ptx has
the SHA-256 of kernels.cu, which a test compares.
"""

import ctypes
import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPTIONS = [b"--gpu-architecture=compute_70", b"--std=c++17"]


def main():
    source = (HERE / "kernels.cu").read_bytes()
    nvrtc = ctypes.CDLL(sys.argv[1])
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    status = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    print(log.value.decode(), end="")
    assert status == 0, f"status {status}"
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    head = f"// SHA-256 of kernels.cu: {hashlib.sha256(source).hexdigest()}\n"
    (HERE / "kernels.ptx").write_bytes(head.encode() + ptx.value)


if __name__ == "__main__":
    main()
