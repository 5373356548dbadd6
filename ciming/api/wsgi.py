# SPDX-License-Identifier: Apache-2.0
"""The API for any WSGI server: `ciming.api.wsgi:application`."""

from ciming import cmd
from ciming.api import app, startup, uwsgi

assert cmd      # imported first: it settles how the process is concurrent
startup.prepare()
application = uwsgi.by_the_book(app.create_app())
