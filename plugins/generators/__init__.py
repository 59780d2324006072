"""Generators, one module each; registered under the entry point group ``miad_gateway.generators``.

``train.py`` trains them; a site trains its own with ``miad-gateway train-mark``.
"""
