"""Hours of mixed modalities with faults: the ledger has to be exact at the end, and nothing may grow."""
