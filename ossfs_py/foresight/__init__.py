"""Foresight predicts what a program will read next, from the format of a file and its accesses.

``formats`` says which class parses which file's table of contents. Each class gets bytes that the
program reads anyway, and gives a ``Layout``: the places of the file's parts (tensors, records,
column chunks). ``belief`` takes the layout and the accesses, and predicts the next byte ranges. All
of it is pure: it does not fetch, wait or keep time. Nothing is trusted: a wrong table costs a
limited number of bytes, and never changes what a program reads.
"""
