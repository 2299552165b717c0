"""A real S3 server on loopback, in a process of its own, for tests of the store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3fs import S3FileSystem

from tests.servers import until_it_answers


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run moto's server while the block runs.

    Args:
        folder: gets its log.

    Yields:
        The environment by which s3fs and boto3 find it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            until_it_answers(f"{address}/moto-api/", process, folder / "s3.log")
            S3FileSystem.clear_instance_cache()  # one that this process made for another server would still ask that one
            yield {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            process.terminate()
