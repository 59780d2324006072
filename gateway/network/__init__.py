"""The network floor: associations, presentation contexts, TLS and DIMSE status. No pixels, no keys.

ingress   the C-STORE SCP that faces the archive
egress    the C-STORE SCU that faces the destinations
retrieve  the Query/Retrieve SCP that faces authorized workstations
server    what the two SCPs are made of, with listener (connections), upper_layer, provider and pdu_socket
          (associations, their sockets' threads, PDUs), admission (how many at once), refusals (the audit of who is
          sent away), callers (who calls)
scu       what everything that calls out is made of, with connect (TCP and TLS)
both      associate_pdus (lenient reading of A-ASSOCIATE), command, contexts, statuses, tls, binding, settings
"""
