"""The commands of `miad-gateway`, a module each: they read arguments and show results; the work is done in the floors.

Heavy packages (torch, pydantic, pynetdicom, numpy) are imported inside the functions that need them, so that help and
completion answer at once.
"""
