"""The commissioning probe: one labelled synthetic instance to a destination, fetched back, and what survived of it."""
