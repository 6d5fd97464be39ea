"""The life of one mount, from its checks to its exit code.

``life`` checks, mounts, waits for signals, drains and unmounts. ``options`` turns settings into the
options of every layer; the layers do not know the settings. ``assembly`` builds the objects of one
mount. Only these two modules know all layers. ``servicestate`` notifies the service manager.
Everything that is built here is taken down here, innermost first, whatever happens.
"""
