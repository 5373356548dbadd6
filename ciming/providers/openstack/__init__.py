# SPDX-License-Identifier: Apache-2.0
"""OpenStack: an image in one Glance, uploaded by PUT, proven by Glance's own hash.

`provider` is the door, `account` makes the calls, `records` has what a Glance says of an image, `zones` what
a sync of zones compares and carries.
"""
