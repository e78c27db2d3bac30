"""Writes the bytecode that an image brings: `python -m enforcer.datapath.build [TARGET]`.

Without TARGET it lies where the loader looks for it. It needs bcc, headers and gcc, but no rights
and no bpf().
"""

from __future__ import annotations

import sys
from pathlib import Path

from enforcer.datapath import loader
from enforcer.datapath.compilation import compiled
from generators.errors import RingfenceError
from generators.process.files import write_atomically


def main() -> int:
    """Build for a shell; errors go to stderr, with their exit code."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else loader.SHIPPED
    try:
        made = compiled(loader.wanted())
        write_atomically(target, made.to_json())
    except RingfenceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"cannot write {target}: {error.strerror}; choose another TARGET\n")
        return 1
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
