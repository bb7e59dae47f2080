"""A Google Cloud Storage for tests: gcp-storage-emulator with what gcsfs also needs, and a thread for each request.

Run as `python tests/support/gcs_emulator.py PORT BUCKET`. Added are uploads that replace nothing
(`ifGenerationMatch=0`), cancelling a resumable upload, and moving an object.
"""

from __future__ import annotations

import contextlib
import http.server
import sys
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from gcp_storage_emulator import server, settings
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def object_exists(storage: Any, bucket: str, name: str) -> bool:
    try:
        storage.get_file_obj(bucket, name)
    except NotFound:
        return False
    return True


def insert(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    """Uploads, or answers 412 if the object exists although it must not."""
    data = request.data or {}
    name = request.query.get("name", [data.get("name") or data.get("meta", {}).get("name")])[0]
    create_only = request.query.get("ifGenerationMatch") == ["0"]
    if create_only and name and object_exists(storage, request.params["bucket_name"], name):
        response.status = HTTPStatus.PRECONDITION_FAILED
        reason = {"reason": "conditionNotMet"}
        response.json({"error": {"code": 412, "message": "a precondition does not hold", "errors": [reason]}})
        return
    objects.insert(request, response, storage, *args, **kwargs)


def cancel_upload(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    upload = request.query.get("upload_id", [""])[0]
    with contextlib.suppress(NotFound):
        storage.delete_resumable_file_obj(upload)
    response.status = SimpleNamespace(value=499, phrase="Client Closed Request")


def move(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    bucket, source = request.params["bucket_name"], request.params["object_id"]
    try:
        moved = objects._copy(request.base_url, storage, bucket, source, bucket, request.params["dest_object_id"])
        storage.delete_file(bucket, source)
    except NotFound:
        response.status = HTTPStatus.NOT_FOUND
        return
    response.json(moved)


def install() -> None:
    """Puts the additions in front of the emulator's handlers."""
    bucket = r"(?P<bucket_name>[-.\w]+)"
    moving = rf"^{settings.API_ENDPOINT}/b/{bucket}/o/(?P<object_id>.*[^/]+)/moveTo/o/(?P<dest_object_id>.*[^/]+)$"
    uploading = rf"^{settings.UPLOAD_API_ENDPOINT}/b/{bucket}/o$"
    uploads = {"POST": insert, "PUT": objects.upload_partial, "DELETE": cancel_upload}
    server.HANDLERS = ((moving, {"POST": move}), (uploading, uploads), *server.HANDLERS)
    server.server.HTTPServer = http.server.ThreadingHTTPServer


if __name__ == "__main__":
    install()
    server.create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket=sys.argv[2]).run()
