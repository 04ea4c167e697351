"""`nopokedb` and `python -m nopokedb`: the command line, or how to install it."""

from __future__ import annotations

import sys

from nopokedb.distribution import install_hint


def main() -> int:
    """Run the command line with the arguments of the process; the exit code."""
    try:
        from nopokedb.cli.application import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        print(f"the command line needs {error.name}: {install_hint('cli')}", file=sys.stderr)
        return 2
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
