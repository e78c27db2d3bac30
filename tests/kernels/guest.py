"""Another kernel under qemu, on this machine's own files: read-only, by 9p; what it may write is in
memory. Without KVM, so that it runs where this machine is a guest itself; that is slow.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.datapath import compilation, loader
from generators.errors import MachineLacks, RingfenceError
from lab.api import assets
from lab.api.real import programs
from tests.kernels import packages
from tests.kernels.packages import Unpacked
from tests.testbed.debian import Say
from tests.testbed.waiting import ended, ending

QEMU = "qemu-system-x86_64"
CHECKOUT = Path(__file__).resolve().parents[2]
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "veth", "sch_ingress", "cls_bpf", "overlay")
APPLETS = ("sh", "mount", "insmod", "switch_root", "cat", "cp")
MODULES = "usr/lib/modules"
"""Those of this machine, with its headers: not in sight of the guest."""
SECONDS = 900.0
RESULT, BYTECODE = "result.json", "programs.json"
INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose host /host
for name in proc sys dev; do mount -o bind /$name /host/$name; done
mount -t bpf bpf /host/sys/fs/bpf
mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
for name in run tmp var/tmp root {modules}; do mount -t tmpfs tmpfs /host/$name; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 result /host/mnt
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose cache /host/srv
cp /bin/busybox /host/run/
# Not chroot: who enters the mounts of another process would be outside of it.
exec switch_root /host /bin/sh -c '{command}; /run/busybox poweroff -f'
"""


class GuestFailed(RingfenceError):
    """The kernel did not come as far as an answer; carries the end of what it said."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What inside.py found out about a kernel."""

    release: str
    steps: Mapping[str, int]
    """What the verifier took for each program."""
    attached: str
    """tcx or clsact."""
    cells: object
    """`cells` of `matrix --engine kernel -o json`."""
    unified: object
    """What unified.py found out; None where control groups are of version 1."""

    @classmethod
    def read(cls, text: str) -> Asked:
        """From what inside.py printed."""
        found = json.loads(text)
        return cls(**found)


def check() -> None:
    """MachineLacks where no guest can be started."""
    if shutil.which(QEMU) is None:
        raise MachineLacks(f"{QEMU} is not installed", "as root: tools/setup.sh kernels")
    loader.check_machine()
    programs.check()


def build(target: Path) -> None:
    """The bytecode of these sources, as an image gets it."""
    target.write_bytes(compilation.compiled(loader.wanted()).to_json())


def ask(kernel: Unpacked, work: Path, say: Say) -> Asked:
    """Boot a kernel and have inside.py ask it."""
    check()
    out = work / "out"
    out.mkdir(parents=True)
    build(out / BYTECODE)
    image = work / "initrd.gz"
    _write_initrd(kernel, work / "initrd", image, say)
    log = work / "console.log"
    say(f"kernels: booting {kernel.release} (minutes; its console is {log})")
    with log.open("wb") as console:
        process = subprocess.Popen(
            _qemu(kernel, image, out), stdin=subprocess.DEVNULL, stdout=console, stderr=console
        )
        with ending(process):
            ended(process, SECONDS)
    result = out / RESULT
    if not result.exists():
        tail = log.read_bytes()[-3000:].decode(errors="replace")
        raise GuestFailed(f"{kernel.release} gave no answer; it said:\n{tail}")
    return Asked.read(result.read_text())


def _command() -> str:
    """What the guest runs, with the host's Python and in the host's files."""
    settings = "PYTHONDONTWRITEBYTECODE=1 RINGFENCE_PATIENCE=6 XDG_CACHE_HOME=/srv"
    settings += " PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    answer = f"/mnt/{RESULT}"
    return (
        f"cd {CHECKOUT} && env {settings} {sys.executable} -m tests.kernels.inside"
        f" /mnt/{BYTECODE} > {answer}.part && mv {answer}.part {answer}"
    )


def _write_initrd(kernel: Unpacked, folder: Path, image: Path, say: Say) -> None:
    busybox = packages.unpacked(packages.BUSYBOX, say) / "bin" / "busybox"
    for name in ("bin", "modules", "proc", "sys", "dev", "host"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin" / "busybox")
    for applet in APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    order = []
    root = kernel.folder / "lib" / "modules" / kernel.release
    for path in packages.modules(root, BOOT_MODULES):
        order.append(path.name.removesuffix(".xz"))
        (folder / "modules" / order[-1]).write_bytes(packages.read(path))
    (folder / "modules" / "order").write_text(" ".join(order))
    init = folder / "init"
    init.write_text(INIT.replace("{command}", _command()).replace("{modules}", MODULES))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    archive = subprocess.run(
        [busybox, "cpio", "-o", "-H", "newc"],
        cwd=folder,
        input=names.encode(),
        capture_output=True,
        check=True,
    )
    image.write_bytes(gzip.compress(archive.stdout, 1))


def _qemu(kernel: Unpacked, image: Path, out: Path) -> list[str]:
    shared = "security_model=none,multidevs=remap"
    # In the guest /root is empty, and with it the home's cache.
    cache = assets.cache_root().parents[1]
    return [
        *(QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2500"),
        *("-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(kernel.image), "-initrd", str(image)),
        *("-append", "console=ttyS0 panic=-1 quiet"),
        *("-virtfs", f"local,path=/,mount_tag=host,readonly=on,{shared}"),
        *("-virtfs", f"local,path={out},mount_tag=result,{shared}"),
        *("-virtfs", f"local,path={cache},mount_tag=cache,readonly=on,{shared}"),
    ]
