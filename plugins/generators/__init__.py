"""Generators, one module each; registered under the entry point group ``miad_gateway.generators``.

None is shipped yet: what a few hundred steps gave misled next to nothing. ``train.py`` trains the default ones.
"""
