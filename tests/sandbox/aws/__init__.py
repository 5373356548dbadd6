# SPDX-License-Identifier: Apache-2.0
"""A strict stand-in of AWS on loopback, for unmodified boto3 (``endpoint_url=``).

It is meant never to be more lenient than the documents of AWS. The rules, and the page that each comes from,
are at the top of the modules:

- `errors`: what each service calls what is wrong; `wire`: what the services' models demand
- `signing`: who signed, when, and whether rightly; `access`: accounts, policies; `sts`: sessions of a role
- `ebs`: snapshots that are written and read block by block
- `images`, `copies`, `snapshots`, `sharing`, `tags`, `describe`, `lookup`, `tokens`, `ec2`: the rest of EC2
- `imports`: disks out of S3; `s3`: S3, which is moto's behind checks; `keys`: what of KMS encrypts snapshots

Where the documents name no code for a refusal, the one here is the nearest that they do name: a client can
count on being refused, not on the word. What is not done here at all is an InvalidAction or an
UnsupportedOperation.

Users: `owner` may do all, `reader` of the same account only look, `stranger` is another account, and
`broker`, a third one, may only assume the role, with its external id. Regions: `state.REGIONS`; of another
one a connection ends without an answer.

Beside AWS's services there is a side door, which ``StandIn`` speaks to: faults (`faults.KINDS`), settings
(`state.Settings`), and a look at everything that was made.
"""

from tests.sandbox.aws.starter import StandIn, running, start, stop

__all__ = ["StandIn", "running", "start", "stop"]
