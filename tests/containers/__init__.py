"""The image, built and run by an engine: ``make images``.

No registry is asked. The base image comes from debootstrap and the mirror that this machine's apt
uses, once, and is kept with the engine's other files in ``OSSFS_PY_IMAGES``.
"""
