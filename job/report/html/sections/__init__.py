"""The parts of the page: each module has functions of what is in the run folder that give a section, or None."""
