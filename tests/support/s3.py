"""A private S3-compatible server for tests, in a thread of this process; its buckets are in memory.

This module does not know what is tested with it.
"""

from __future__ import annotations

import logging
import uuid

import s3fs
from moto.server import ThreadedMotoServer


class S3Server:
    """One server on a free loopback port."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it tells every request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        # Clients opened by a URL are remembered with the server that the environment named when they were made.
        s3fs.S3FileSystem.clear_instance_cache()
        host, port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        """Return a client that remembers nothing."""
        return s3fs.S3FileSystem(
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            use_listings_cache=False,
        )

    def new_bucket(self) -> str:
        """Return the name of an empty bucket."""
        bucket = f"bucket-{uuid.uuid4().hex}"
        self.filesystem().mkdir(bucket)
        return bucket

    def stop(self) -> None:
        """End the server; what was in its buckets is gone."""
        self._server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
