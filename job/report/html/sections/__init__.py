"""The sections of the page: each module has functions that take the files of a run and return a section, or None."""
