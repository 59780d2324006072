"""Files in, files out: `protect` and `restore` on the command line, by the same steps as the network path.

Input is never changed, and nothing is written among it (`gateway.files.output` says what files are named). Modules are
imported by name: restoring needs nothing of what marks.
"""
