"""What a lab needs of this machine, checked before anything is made; what is missing comes with its cure.

bcc is only looked for here, never imported: that is loader.py's business.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
from pathlib import Path

from generators.errors import MachineLacks

INSTEAD = "or ask without packets: `ringfence matrix -c FILE -f PATH...`"
_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_ARRAY = (2, 4, 8, 1, 0)  # type, key size, value size, entries, flags


def check() -> None:
    """MachineLacks when this machine cannot run a lab."""
    if os.geteuid() != 0:
        raise _lacks(
            "the lab makes network namespaces and loads eBPF programs, and you are not root",
            "run it with sudo",
        )
    if importlib.util.find_spec("bcc") is None:
        raise _lacks(
            f"bcc, which compiles the eBPF programs, is not installed for Python {_python()}",
            "run `make setup`, or `apt-get install python3-bpfcc` and a virtual environment of "
            "/usr/bin/python3 with --system-site-packages",
        )
    headers = Path("/lib/modules", platform.release(), "build")
    if not headers.is_dir() and not Path("/sys/kernel/kheaders.tar.xz").exists():
        raise _lacks(
            f"there are no kernel headers at {headers}",
            "run `make setup`, or `apt-get install linux-headers-amd64` and link "
            f"/lib/modules/{platform.release()} to the headers' folder there",
        )
    _check_bpf()


def check_root() -> None:
    """MachineLacks for those who may not even look at a lab."""
    if os.geteuid() != 0:
        raise _lacks("the lab belongs to root, and you are not root", "run it with sudo")


def _check_bpf() -> None:
    """Make the smallest map there is, and let it go."""
    number = _BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise _lacks(f"eBPF programs were never tried on {platform.machine()}", "use x86_64")
    attributes = (ctypes.c_uint32 * 32)(*_MAP_ARRAY)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, 0, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if descriptor < 0:
        code = ctypes.get_errno()
        why = "the kernel has none" if code == errno.ENOSYS else os.strerror(code)
        raise _lacks(
            f"eBPF is not available here ({why})",
            "use a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF and CAP_NET_ADMIN in containers",
        )
    os.close(descriptor)


def _lacks(what: str, how: str) -> MachineLacks:
    return MachineLacks(what, f"{how}; {INSTEAD}")


def _python() -> str:
    return platform.python_version()
