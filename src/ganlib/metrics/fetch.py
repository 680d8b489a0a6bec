"""Published weight files: in a folder of the user, or downloaded once, and never used unless they are those meant."""

import contextlib
import hashlib
import http.client
import io
import os
import secrets
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ganlib.errors import DamagedError, MissingError, UsageError
from ganlib.files import digest, explained, sync_folder

TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Published:
    """A file that anybody can have: where, and which bytes. `aliases` are other names it is known by."""

    file: str
    url: str
    sha256: str
    num_bytes: int
    aliases: tuple[str, ...] = ()


INCEPTION = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    95_628_359,
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)
DINOV2_VITS14 = Published(
    "dinov2_vits14_pretrain.pth",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
    "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    88_283_115,
)
DINOV2_VITB14 = Published(
    "dinov2_vitb14_pretrain.pth",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    346_378_731,
)
PUBLISHED = (INCEPTION, DINOV2_VITS14, DINOV2_VITB14)


def cache_folder() -> Path:
    """Where weight files are kept: ``GANLIB_HOME``, or ``~/.cache/ganlib``."""
    home = os.environ.get("GANLIB_HOME")
    return Path(home) if home else Path.home() / ".cache" / "ganlib"


def fetched(published: Published, folder: Path, *, download: bool = True) -> Path:
    """The path of a published file in `folder`, downloaded if it is not there, with a warning that says from where.

    Raises DamagedError where the file is not the published one, and MissingError where it can not be had.
    """
    for name in (published.file, *published.aliases):
        path = folder / name
        if path.is_file():
            if path.stat().st_size != published.num_bytes or digest(path) != published.sha256:
                raise DamagedError(f"{path} is not the published file (SHA-256 {published.sha256}); delete it")
            return path
    path = folder / published.file
    by_hand = f"put {published.url} (SHA-256 {published.sha256}) at {path}"
    if not download:
        raise MissingError(f"{path} is not there, and downloads are off; {by_hand}")
    warnings.warn(f"downloading {published.num_bytes:,} bytes from {published.url} to {path}", stacklevel=2)
    try:
        stream = _opened(published.url)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise MissingError(f"cannot download {published.url} ({reason}); connect to a network, or {by_hand}") from error
    with stream:
        save_verified(stream, published, path)
    return path


def save_verified(stream: io.BufferedIOBase, published: Published, path: Path) -> None:
    """Write the stream to `path` if it is the published file; else leave nothing behind.

    Reads no more than one chunk beyond the published size, however long the stream is. Raises DamagedError for other
    content, MissingError where the stream breaks, WriteError where the disk does not take it.
    """
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    with explained(path, published.num_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                num_bytes, found = _copied(stream, file, published)
                file.flush()
                os.fsync(file.fileno())
            if num_bytes != published.num_bytes:
                much = "more than" if num_bytes > published.num_bytes else f"{num_bytes:,} of"
                raise DamagedError(f"{published.url} sent {much} {published.num_bytes:,} bytes; try again")
            if found != published.sha256:
                raise DamagedError(f"{published.url} sent SHA-256 {found}, not {published.sha256}; nothing was kept")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        sync_folder(path.parent)


def _copied(stream: io.BufferedIOBase, file: io.BufferedIOBase, published: Published) -> tuple[int, str]:
    """How many bytes came, and their SHA-256."""
    num_bytes, sha256 = 0, hashlib.sha256()
    while num_bytes <= published.num_bytes:
        try:
            chunk = stream.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise MissingError(f"{published.url} broke off at {num_bytes:,} bytes ({error}); try again") from error
        if not chunk:
            break
        num_bytes += len(chunk)
        sha256.update(chunk)
        file.write(chunk)
    return num_bytes, sha256.hexdigest()


def _opened(url: str) -> http.client.HTTPResponse:
    check_https(url)
    opener = urllib.request.build_opener(_OnlyHttps())
    return opener.open(url, timeout=TIMEOUT_SECONDS)


def check_https(url: str) -> None:
    """Raise UsageError unless the address begins with https."""
    if not url.startswith("https://"):
        raise UsageError(f"{url}: accepted are addresses that begin with https://")


@final
class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
