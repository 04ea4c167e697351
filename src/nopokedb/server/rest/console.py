"""The console: its files, as they ship in the package, each under its own name and nothing else.

They are read once, into a table by path, so that no path of a request ever reaches the file system. The page runs under
a policy that allows it nothing but itself: no inline script or style, no other host.
"""

from __future__ import annotations

from pathlib import Path

from nopokedb.server.rest.replies import Header, Reply

FOLDER = Path(__file__).parent.parent / "console"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
HEADERS: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def console_replies() -> dict[str, Reply]:
    """What is answered for each path of the console."""
    found = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in _TYPES:
            name = file.relative_to(FOLDER).as_posix()
            path = "/" if name == "index.html" else f"/console/{name}"
            found[path] = Reply(file.read_bytes(), media_type=_TYPES[file.suffix], headers=HEADERS)
    return found
