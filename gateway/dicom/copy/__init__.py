"""The copy that leaves: what it says of itself, what it refers to, and what it carries of its original."""
