"""Child processes that decode and encode foreign codestreams: without keys, files, sockets or the parent's memory.

`pool` runs here, in the process of a role; `main` and what it imports run there. Codec libraries are loaded there only.
"""
