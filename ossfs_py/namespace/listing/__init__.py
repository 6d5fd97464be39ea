"""Reads directories: LIST pages become entries. Listings are shared while in flight, and kept when
complete.

``merge`` turns pages into entries and is pure. ``ranges`` reads a large directory in several places
at once, which ``guessing`` finds. ``reading`` is one listing, ``shared`` knows all of them, and
``whole`` keeps those that are complete. ``walks`` lists ahead of a program that walks a tree.
Memory is bounded: a listing that is too long to be kept streams.
"""
