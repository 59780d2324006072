"""MIAD Gateway: marks what leaves a hospital's archive, and gives authorized workstations the bit-exact original."""

__version__ = "0.2.0"
