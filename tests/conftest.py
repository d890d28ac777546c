"""For all tests: how many examples a property is tried on."""

from hypothesis import settings

for name, examples in {"quick": 25, "short": 100, "fuzz": 1000}.items():
    settings.register_profile(name, max_examples=examples, deadline=None)  # a first example may import a library
settings.load_profile("quick")  # `make fuzz` asks for another
