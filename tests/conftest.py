"""Settings of the whole suite."""

from hypothesis import settings

# The same examples in every run: a suite that draws new ones fails by chance, and not for the
# change at hand. `pytest --hypothesis-profile=search` draws new ones, ten times as many.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("search", deadline=None, max_examples=600)
settings.load_profile("suite")
