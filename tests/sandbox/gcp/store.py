# SPDX-License-Identifier: Apache-2.0
"""Where buckets and objects are kept: in the storage of gcp-storage-emulator, in this process.

Its handlers of requests are not used: they look at checksums of a description only, give composite objects an
MD5 and no count of components, honour no precondition, know neither pages nor fields, and write all data of a
resumable upload anew with each chunk. What else is not Google's is mended here:

- Names that differ only in slashes were one object, and an object could not be named like a folder.
- Data were written while they could be read; here a file that is complete takes the place of the old one.
- Everything that is known was written down at each change; here it ends with the process.
"""

import hashlib
import itertools
import os
import pathlib
import shutil
import tempfile
import time
from typing import Any

import gcp_storage_emulator.storage as emulator

Resource = dict[str, Any]


class _Files(emulator._FileStore):  # type: ignore[misc]
    def write_bytes(self, rel: str, content: pathlib.Path) -> None:
        """Take over a file: who reads the one that it replaces goes on to."""
        target = self._disk_path(rel)
        target.parent.mkdir(parents=True, exist_ok=True)
        content.replace(target)


class Store(emulator.Storage):  # type: ignore[misc]
    """Buckets and objects; callers hold the state's lock, but not while they read or write files."""

    def __init__(self, directory: pathlib.Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)  # of a run that ended: what knew of it is gone
        super().__init__(data_dir=str(directory.absolute()))
        self._store = _Files(use_memory=False, root=directory)
        self._incoming = directory / "_incoming"
        self._incoming.mkdir()
        self.projects: dict[str, str] = {}
        """The project of each bucket."""
        self._generations = itertools.count(time.time_ns() // 1000)

    def _object_path(self, bucket_name: str, file_name: str) -> str:
        return f"{bucket_name}/{hashlib.sha256(file_name.encode()).hexdigest()}"

    def _write_config_to_file(self) -> None:
        pass

    def incoming(self) -> pathlib.Path:
        """Return a new, empty file for data that come."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        os.close(handle)
        return pathlib.Path(name)

    def generation(self) -> str:
        """Return a generation that no object had before."""
        return str(next(self._generations))

    def find(self, bucket: str, name: str) -> Resource | None:
        """Return an object's resource, if there is one."""
        found: Resource | None = self.objects.get(bucket, {}).get(name)
        return found

    def file(self, bucket: str, name: str) -> pathlib.Path:
        """Return where the data of an object are."""
        path: pathlib.Path = self._store._disk_path(self._object_path(bucket, name))
        return path

    def clear(self) -> None:
        """Forget everything."""
        for bucket in list(self.buckets):
            self._delete_dir(bucket)
        for things in (self.buckets, self.objects, self.projects):
            things.clear()
