"""Published files: kept only where they are the bytes meant, and features by name."""

import hashlib
import http.server
import io
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import torch

from ganlib.errors import DamagedError, MissingError, UsageError, WriteError
from ganlib.metrics import fetch
from ganlib.metrics.fetch import INCEPTION, PUBLISHED, Published, cache_folder, check_https, fetched, save_verified
from ganlib.metrics.named import NAMES, named

CONTENT = bytes(range(256)) * 20_000
FILE = Published("file.bin", "https://127.0.0.1:1/file.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), ("b",))


def test_a_whole_download_is_kept(tmp_path: Path) -> None:
    save_verified(io.BytesIO(CONTENT), FILE, tmp_path / "deep" / "file.bin")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.bin"]
    assert fetched(FILE, tmp_path / "deep", download=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1], "5,119,999 of 5,120,000 bytes"),
        (b"", "0 of 5,120,000 bytes"),
        (CONTENT + b"x", "more than 5,120,000 bytes"),
        (CONTENT[:-1] + b"x", "not " + FILE.sha256),
    ],
)
def test_any_other_download_leaves_nothing_behind(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=message):
        save_verified(io.BytesIO(content), FILE, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_an_endless_download_is_cut_off(tmp_path: Path) -> None:
    class Endless(io.BufferedIOBase):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.taken += size or 0
            assert self.taken < 10 * len(CONTENT)  # an end, should nothing else make one
            return bytes(size or 0)

    stream = Endless()
    with pytest.raises(DamagedError, match="more than"):
        save_verified(stream, FILE, tmp_path / "file.bin")
    assert stream.taken <= len(CONTENT) + (1 << 20)


@pytest.fixture
def server() -> Iterator[str]:
    """A server that promises the whole file and hangs up after half of it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/file.bin"
        listening.shutdown()
        thread.join()


def test_a_connection_that_breaks_off_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    with (
        urllib.request.urlopen(server) as stream,
        pytest.raises((DamagedError, MissingError), match="try again"),
    ):
        save_verified(stream, FILE, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_reset_connection_is_a_missing_file(tmp_path: Path) -> None:
    class Resetting(io.BufferedIOBase):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("reset by peer")

    with pytest.raises(MissingError, match="broke off at 0 bytes"):
        save_verified(Resetting(), FILE, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_only_https_is_asked_and_followed(server: str, tmp_path: Path) -> None:
    plain = Published("file.bin", server, FILE.sha256, FILE.num_bytes)
    with pytest.warns(UserWarning, match="downloading"), pytest.raises(UsageError, match="https"):
        fetched(plain, tmp_path)
    for url in ("http://a.org/x", "file:///etc/passwd", "ftp://a.org/x", "HTTP://a.org", "//a.org/x"):
        with pytest.raises(UsageError, match="https"):
            check_https(url)
    handler, request = fetch._OnlyHttps(), urllib.request.Request("https://a.org/x")
    with pytest.raises(UsageError, match="https"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "http://a.org/x")
    followed = handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "https://b.org/y")
    assert followed is not None and followed.full_url == "https://b.org/y"


def test_without_a_network_it_says_what_to_put_where(tmp_path: Path) -> None:
    """Nothing listens on port 1 of this machine."""
    with (
        pytest.warns(UserWarning, match=r"downloading 5,120,000 bytes from https://127\.0\.0\.1:1/file\.bin"),
        pytest.raises(MissingError, match=f"connect to a network, or put .* \\(SHA-256 {FILE.sha256}\\) at "),
    ):
        fetched(FILE, tmp_path)
    with pytest.raises(MissingError, match="downloads are off"):
        fetched(FILE, tmp_path, download=False)


def test_a_file_that_is_there_is_checked_each_time(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(CONTENT)  # another name of the same file
    assert fetched(FILE, tmp_path).name == "b"
    (tmp_path / "b").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DamagedError, match="not the published file"):
        fetched(FILE, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot write"):
        save_verified(io.BytesIO(CONTENT), FILE, tmp_path / "file" / "file.bin")


def test_published_files_are_pinned() -> None:
    for published in PUBLISHED:
        check_https(published.url)
        assert len(published.sha256) == 64 and int(published.sha256, 16) and published.num_bytes < 400_000_000
    # Both known names of the Inception file end in the first digits of its digest.
    assert all(f"-{INCEPTION.sha256[:8]}.pth" in name for name in (INCEPTION.file, *INCEPTION.aliases))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANLIB_HOME", str(tmp_path))
    return tmp_path


def test_the_cache_is_in_the_home_of_the_user_or_where_it_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home
    monkeypatch.delenv("GANLIB_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ganlib"


def test_features_are_found_by_name(home: Path, shared_data: Path) -> None:
    assert named("pixels").name == "pixels-32"
    assert named("random").name == "random-convolutions-32x4-seed0"
    assert named("random", channels=1)(torch.zeros(1, 1, 8, 8)).shape == (1, 256)
    nets = shared_data / "feature_nets"
    for name, file in [("mobilenet", "mobilenet_v1_075_imagenet.npz"), ("resnet56", "cifar10_resnet56.npz")]:
        with pytest.raises(MissingError, match=file):
            named(name)
        shutil.copy(nets / file, home)
        assert named(name).digest() == named(nets / file).digest()
    assert named("resnet56").name == "cifar-resnet56-pool-32-clean"
    assert named("mobilenet", side=64).name == "mobilenet-v1-0.75-pool-64-clean"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("inception", "dinov2"))])
def test_published_weights_are_not_fetched_unasked(name: str, home: Path) -> None:
    with pytest.raises(MissingError, match="downloads are off; put https://"):
        named(name, download=False)
    assert list(home.iterdir()) == []


def test_published_weights_must_be_those(home: Path) -> None:
    (home / INCEPTION.file).write_bytes(b"not they")
    with pytest.raises(DamagedError, match="not the published file"):
        named("inception")


def test_unknown_names_are_refused_with_those_known(home: Path) -> None:
    with pytest.raises(UsageError, match=r"no features named vgg; accepted are pixels, random, .*\.safetensors"):
        named("vgg")
    with pytest.raises(MissingError, match="is not there"):
        named(home / "absent.safetensors")
