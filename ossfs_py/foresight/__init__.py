"""Foresight: what a program will read next of a file, guessed from its format and its accesses.

``formats`` says which class reads which file's table; each class takes bytes as they pass and
gives a ``Layout``: where the file's parts (tensors, records, column chunks) lie. ``belief`` takes
the layout and the accesses, and says what is wanted next, as byte ranges. All of it is pure:
nothing here fetches, waits or keeps time. Nothing is trusted: what a table says wrongly costs
bytes that are bounded, and never changes what a program reads.
"""
