# SPDX-License-Identifier: Apache-2.0
"""The processes. Importing this package comes first, and settles how they are concurrent: by threads.

eventlet is a dependency's dependency: oslo.messaging would choose it when imported before this.
"""

import atexit
import contextlib
import ctypes
import gc
import logging
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

sys.modules["eventlet"] = None  # type: ignore[assignment]  # "import eventlet" is an ImportError

from keystoneauth1 import exceptions as ks_exceptions  # noqa: E402  # after the line above
from oslo_config import cfg  # noqa: E402
from oslo_db import exception as db_exceptions  # noqa: E402
from oslo_service import backend  # noqa: E402
from sqlalchemy import exc as sa_exceptions  # noqa: E402
from stevedore import exception as stevedore_exceptions  # noqa: E402
from taskflow import exceptions as tf_exceptions  # noqa: E402
from tooz import ToozError  # noqa: E402

backend.init_backend(backend.BackendType.THREADING)
from ciming import exceptions  # noqa: E402

# Or a process that ends looks for garbage in all that it has loaded: a second, with the clouds' SDKs.
atexit.register(gc.freeze)

# Logs what it also raises, with a traceback.
logging.getLogger("oslo_db.sqlalchemy.exc_filters").setLevel(logging.CRITICAL)

NOT_READY = (
    OSError,
    ImportError,                # of a database's driver
    cfg.Error,
    ValueError,                 # of an option
    db_exceptions.DBError,
    exceptions.NotReady,
    ks_exceptions.ClientException,
    sa_exceptions.SQLAlchemyError,
    stevedore_exceptions.NoMatches,
    tf_exceptions.TaskFlowException,
    ToozError,
)
PR_SET_DUMPABLE = 4         # <linux/prctl.h>
PASSWORD_IN_URL = re.compile(r"(//[^:/@\s]*):[^@\s]*@")


def leave_no_core() -> None:
    """Credentials are in this process' memory: no core file of it, nor of what it starts.

    Where a core goes to a program, the kernel does not look at the limit; children that are other programs
    have the limit only.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


@contextlib.contextmanager
def one_clear_line(name: str | None = None, status: int = 1) -> Iterator[None]:
    """What an operator can mend is said in one line, and ends the process."""
    try:
        yield
    except NOT_READY as error:
        print(f"{name or Path(sys.argv[0]).name}: {in_one_line(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(status)


def in_one_line(error: BaseException) -> str:
    """An error in one line; a password in a URL is left out."""
    cause = error.__cause__ or error
    text = PASSWORD_IN_URL.sub(r"\1:***@", " ".join(str(cause).split()))
    return text if isinstance(cause, exceptions.NotReady) else f"{type(cause).__name__}: {text}"
