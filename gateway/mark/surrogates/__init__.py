"""The networks that a mark is optimised against, and what they hold an image to be."""
