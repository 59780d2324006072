"""The log-structured spool: what was received, in append-only segments with one flush for all that wait.

format      the layout, and what a segment's end tells
file, log   writing: one segment, and the log that all associations of a process share
rows        rows follow
recovery    what dead processes left gets its rows
spool       reading
reclaim     whole segments go, stragglers are copied forward
shared      the same in an object store, where a group is an object (`gateway.flow.durability`)
"""
