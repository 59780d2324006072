"""How a mark is drawn: one module a method."""
