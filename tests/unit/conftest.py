"""Of the unit tests: how long one generated example takes says more about the machine than about us."""

import hypothesis

hypothesis.settings.register_profile("warren", deadline=None)
hypothesis.settings.load_profile("warren")
