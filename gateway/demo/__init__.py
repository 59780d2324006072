"""`miad-gateway demo`: the whole way on one machine, between foreign peers, with what each side sees."""
