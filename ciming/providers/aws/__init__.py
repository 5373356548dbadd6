# SPDX-License-Identifier: Apache-2.0
"""AWS: an image as an AMI of one region, whose bytes are an EBS snapshot.

`provider` is the door, `account` makes the calls, `snapshots` move the bytes, `images` are AMIs, `metadata`
has the names of things here and there.
"""
