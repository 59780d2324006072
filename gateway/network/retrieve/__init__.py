"""The restore SCP (Query/Retrieve): authorized workstations find originals and get them bit for bit."""

from gateway.network.retrieve.scp import RestoreScp

__all__ = ["RestoreScp"]
