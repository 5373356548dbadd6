# SPDX-License-Identifier: Apache-2.0
"""A strict stand-in of Google Cloud on loopback, for unmodified Google clients (``api_endpoint``).

It is meant never to be more lenient than the documents of Google. The rules, and the page that each comes
from, are at the top of the modules:

- `errors`: refusals as each service writes them; `wire`: requests and answers; `serve`, `calls`:
  the server; `starter`, `door`, `places`: the side door
- `accounts`: projects, service accounts and their keys; `tokens`: who speaks; `access`: who may do what
- `storage`: what of the JSON API of Cloud Storage is done; `buckets`, `objects`, `compose`, `uploads`,
  `resumable`: its parts; `preconditions`, `names`, `fields`: what they share; `store`: where things are kept
- `compute`: what of the API of Compute Engine is done; `images`, `policies`, `operations`: its parts;
  `rules`: what an image may be; `archive`: what is read of a disk; `listing`: filters, orders and pages

Where the documents name no reason for a refusal, the one here is the nearest that they do name: a client can
count on being refused, not on the word. What is not done here at all is a 501, in JSON.

Accounts: `owner` may do all, `reader` of the same project only look, `stranger` has another project.

One address is for everything: both services, and ``/token``, which the keys name. Beside them there is a side
door, which ``StandIn`` speaks to: faults (`faults.KINDS`), settings (`state.Settings`), and a look at
everything that was made.
"""

from tests.sandbox.gcp.starter import StandIn, running, start, stop

__all__ = ["StandIn", "running", "start", "stop"]
