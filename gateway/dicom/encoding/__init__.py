"""Encoded data sets: walking, checking and re-encoding elements, reading headers; nothing of pixels (PS3.5, PS3.10)."""
