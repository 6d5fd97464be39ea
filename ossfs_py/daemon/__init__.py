"""The life of one mount, from its checks to its exit code.

``life`` checks, mounts, waits for signals, drains and unmounts. ``options`` turns settings into the
options of every layer, which know no settings; ``assembly`` builds the objects of one mount: these
two are the only places that know all layers. ``servicestate`` tells the service manager. Everything
built here is taken down here, innermost first, whatever happens.
"""
