"""Pixel data: stored values out of any transfer syntax and back, and what is shown of them (PS3.5 8, PS3.3 C.7.6)."""
