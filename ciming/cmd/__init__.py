# SPDX-License-Identifier: Apache-2.0
"""The processes. Importing this package comes first, and settles how they are concurrent: by threads.

eventlet is a dependency's dependency: oslo.messaging would choose it when imported before this.
"""

import contextlib
import logging
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
# Logs what it also raises, with a traceback.
logging.getLogger("oslo_db.sqlalchemy.exc_filters").setLevel(logging.CRITICAL)

NOT_READY = (
    OSError,
    ImportError,                # of a database's driver
    cfg.Error,
    ValueError,                 # of an option
    db_exceptions.DBError,
    ks_exceptions.ClientException,
    sa_exceptions.SQLAlchemyError,
    stevedore_exceptions.NoMatches,
    tf_exceptions.TaskFlowException,
    ToozError,
)


@contextlib.contextmanager
def one_clear_line() -> Iterator[None]:
    """What an operator can mend is said in one line, with exit status 1."""
    try:
        yield
    except NOT_READY as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {in_one_line(error)}")


def in_one_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
