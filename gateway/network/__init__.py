"""The network floor: associations, presentation contexts, TLS and DIMSE status. No pixels, no keys.

ingress   the C-STORE SCP that faces the archive
egress    the C-STORE SCU that faces the destinations
retrieve  the Query/Retrieve SCP that faces authorized workstations
server    what the two SCPs are made of;  scu: what everything that calls out is made of
"""
