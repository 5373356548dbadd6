# SPDX-License-Identifier: Apache-2.0
"""Google Cloud: an archive that is packed on its way into a bucket, and an image made of it.

`provider` is the door, `account` makes the calls, `archive` knows the form that a disk has in a bucket,
`objects` brings it there and back, `images` is Compute Engine, `metadata` the table of what is called how.
"""
