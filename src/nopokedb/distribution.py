"""How to install the package and its extras: the one place that knows whether it is published.

Every message that asks for an extra, and the README, follow `INSTALL`. When the package is published, this
constant changes and a test says which documents must follow.
"""

from __future__ import annotations

INSTALL = 'python -m pip install ".{extras}"'
"""Run in a clone of the repository. (On PyPI the name still belongs to the original project's 0.5.1.)"""


def install_hint(extra: str | None = None) -> str:
    """The command that installs the package, with `extra` if one is named."""
    return INSTALL.format(extras=f"[{extra}]" if extra else "")
