"""Imported last by the warm process: the garbage collector of a forked process no longer walks the libraries' objects,
which takes half a second each time and copies their memory."""

import gc

gc.collect()
gc.freeze()
