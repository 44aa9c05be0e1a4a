"""What holds for every test: property tests are not timed (the machine may be busy), and draw the same examples every time."""

import hypothesis

hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")
