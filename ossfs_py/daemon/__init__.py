"""The life of one mount, from its checks to its exit code.

``life`` checks, mounts, waits for signals, drains and unmounts. ``assembly`` turns settings into
the options of every layer and builds the objects of one mount; it is the only place that knows all
layers. ``servicestate`` tells the service manager. Everything built here is taken down here,
innermost first, whatever happens.
"""
