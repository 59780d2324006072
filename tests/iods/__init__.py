"""Small valid objects of every kind, made at test time from the real pixels of the data folder; nothing is kept."""
