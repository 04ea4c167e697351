"""Uploads over REST: a stream of lines that are written as they come, or a file that is kept until it is read."""

from __future__ import annotations

import asyncio

from nopokedb.errors import InvalidInputError
from nopokedb.server.refusals import MediaTypeError, TimeLimitError
from nopokedb.server.rest.bodies import stream_body
from nopokedb.server.rest.calls import Call
from nopokedb.server.rest.encoding import encode
from nopokedb.server.rest.replies import Reply
from nopokedb.server.uploads import FORMATS, PART_BYTES, Lines, Spool, Upload, write_file
from nopokedb.transfer.formats import Format

OPTIONS = ("mode", "batch_size")


def format_of(call: Call) -> Format | None:
    """The format of the body, None if it is JSON."""
    kind = call.media_type
    return None if kind == b"application/json" else FORMATS.get(kind)


async def write_upload(call: Call, kind: Format) -> Reply:
    """Write the records of the body; the answer comes when all are written."""
    upload = _upload(call)
    try:
        async with asyncio.timeout(call.service.limits.upload_timeout_s):
            count = await (_lines(call, upload) if kind == "jsonl" else _file(call, kind, upload))
    except TimeoutError:
        raise TimeLimitError("expected the upload to be over by now (upload_timeout_s of this server)") from None
    return Reply(encode({"count": count}))


async def begin_import(call: Call) -> Reply:
    """Take a file, then write its records in a job."""
    call.caller.check("write", call.name)
    kind = FORMATS.get(call.media_type)
    if kind is None:
        listed = ", ".join(name.decode() for name in FORMATS)
        raise MediaTypeError(f"expected a content type of {listed}, got {call.media_type.decode('latin-1')!r:.80}")
    upload = _upload(call)
    job = await call.service.import_file(call.caller, call.name, await _spooled(call), kind, upload)
    return Reply(encode(job), 202)


async def _lines(call: Call, upload: Upload) -> int:
    lines = Lines(upload, call.service.limits.max_body_bytes)
    part = bytearray()
    async for piece in stream_body(call.receive, call.headers, call.service.limits.max_upload_bytes):
        part += piece
        if len(part) >= PART_BYTES:
            await _take(call, lines, bytes(part), last=False)
            part.clear()
    await _take(call, lines, bytes(part), last=True)
    return lines.count


async def _take(call: Call, lines: Lines, part: bytes, *, last: bool) -> None:
    await call.service.on_collection("write", call.name, lambda db: lines.take(db, part, last=last))


async def _file(call: Call, kind: Format, upload: Upload) -> int:
    spool = await _spooled(call)
    try:
        return await call.service.on_collection(
            "slow", call.name, lambda db: write_file(db, spool.path, kind, upload, lambda share: None)
        )
    finally:
        await call.service.in_thread("slow", spool.close)


async def _spooled(call: Call) -> Spool:
    """The body as a file."""
    return await call.service.spooled(stream_body(call.receive, call.headers, call.service.limits.max_upload_bytes))


def _upload(call: Call) -> Upload:
    options = call.options(*OPTIONS)
    size = options.get("batch_size", "1000")
    if not size.isdecimal() or len(size) > 9:
        raise InvalidInputError(f"expected batch_size to be a number, got {size!r:.80}")
    return Upload(options.get("mode", "insert"), int(size))  # type: ignore[arg-type]  # checked there
