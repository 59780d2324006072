"""Where letters and logos lie."""
