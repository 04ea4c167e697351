"""`python -m nopokedb.rpc.generate` makes nopokedb_pb2.py and its types from nopokedb.proto (extra "test")."""

from __future__ import annotations

import sys
from pathlib import Path

_SOURCES = Path(__file__).parents[2]


def generate(target: Path = _SOURCES) -> int:
    """Run the compiler; its exit code. The files come below `target`, as modules of this package."""
    from grpc_tools import protoc

    arguments = ["protoc", f"-I{_SOURCES}", f"--python_out={target}", f"--pyi_out={target}"]
    return int(protoc.main([*arguments, "nopokedb/rpc/nopokedb.proto"]))


if __name__ == "__main__":
    sys.exit(generate())
