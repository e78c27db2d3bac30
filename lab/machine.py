"""What a lab needs of this machine, checked before anything is made; a lack comes with its cure.

What loading programs needs is enforcer/datapath/loader.py's knowledge; here is added that the
kernel lets us, and what to do instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from enforcer.datapath import kernel, loader
from generators.errors import MachineLacks

INSTEAD = "or ask without packets: `ringfence matrix -c FILE -f PATH...`"
_MAP_ARRAY = (2, 4, 8, 1, 0)  # type, key size, value size, entries, flags


def check() -> None:
    """MachineLacks when this machine cannot run a lab."""
    try:
        loader.check_machine()
    except MachineLacks as lack:
        raise _lacks(lack.what, lack.how) from None
    _check_bpf()


def check_root() -> None:
    """MachineLacks for those who may not even look at a lab."""
    if os.geteuid() != 0:
        raise _lacks("the lab belongs to root, and you are not root", "run it with sudo")


def _check_bpf() -> None:
    """Make the smallest map there is, and let it go."""
    number = kernel.BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise _lacks(f"no bpf() is known for {platform.machine()}", "use x86_64 or aarch64")
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
