# SPDX-License-Identifier: Apache-2.0
"""The API for any WSGI server: `ciming.api.wsgi:application`."""

from ciming import cmd
from ciming.api import app, startup, uwsgi

assert cmd      # imported first: it settles how the process is concurrent
startup.prepare()
application = uwsgi.with_chunked_input(app.create_app())
