"""Sites with one thing wrong each: what a person may find in front of him, and what the gateway has to say of it.

`python -m tests.support.broken` prints them as a table. `site` makes a sound site, the other modules break it.
"""
