# SPDX-License-Identifier: Apache-2.0
"""What of EC2 there is: images, snapshots, tags, and what an account may use.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeAccountAttributes.html
"""

from typing import Any

from tests.sandbox.aws import describe, errors, images, snapshots, tags
from tests.sandbox.aws.state import NOT_OPTED_IN, REGIONS, Action, Call

REGION_FILTERS = frozenset(("endpoint", "opt-in-status", "region-name"))
ATTRIBUTES = {
    "supported-platforms": ["VPC"], "default-vpc": ["none"], "max-instances": ["20"],
    "vpc-max-security-groups-per-interface": ["5"], "max-elastic-ips": ["5"], "vpc-max-elastic-ips": ["5"],
}  # fmt: skip


def describe_regions(call: Call) -> dict[str, Any]:
    """Return the regions that the account has enabled, or with AllRegions all of them."""
    wanted = call.params
    everywhere = (*REGIONS, *NOT_OPTED_IN)
    names = wanted.get("RegionNames", everywhere if wanted.get("AllRegions") else REGIONS)
    filters = describe.checked(wanted, REGION_FILTERS)
    regions = []
    for name in names:
        if name not in everywhere:
            raise errors.refusal("ec2", "invalid", f"Invalid region names: [{name}]")
        opted = "not-opted-in" if name in NOT_OPTED_IN else "opt-in-not-required"
        region = {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": opted}
        facts = {"region-name": [name], "endpoint": [region["Endpoint"]], "opt-in-status": [opted]}
        if describe.passes(filters, facts, {}):
            regions.append(region)
    return {"Regions": regions}


def describe_account_attributes(call: Call) -> dict[str, Any]:
    """Return what is true of every account here."""
    names = call.params.get("AttributeNames", ATTRIBUTES)
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": one} for one in ATTRIBUTES[name]]}
            for name in names
        ]
    }


def get_ebs_encryption_by_default(call: Call) -> dict[str, Any]:
    """Tell whether new snapshots are encrypted unasked."""
    return {"EbsEncryptionByDefault": call.state.settings.encryption_by_default}


ACTIONS: dict[str, Action] = {
    **images.ACTIONS,
    **snapshots.ACTIONS,
    **tags.ACTIONS,
    "DescribeRegions": describe_regions,
    "DescribeAccountAttributes": describe_account_attributes,
    "GetEbsEncryptionByDefault": get_ebs_encryption_by_default,
}
