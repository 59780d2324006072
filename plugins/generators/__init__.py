"""Generators, one module each; registered under the entry point group ``miad_gateway.generators``."""
