"""Reading directories: LIST pages become entries, shared while under way and kept when complete.

``merge`` turns pages into entries and is pure, ``numbered`` guesses where later pages begin,
``reading`` is one listing, ``shared`` knows all of them, ``walks`` lists ahead of a program that
walks a tree. Memory is bounded: a listing too long to be kept streams.
"""
