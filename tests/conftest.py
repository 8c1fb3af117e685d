"""Property tests are judged by what they find, not by the clock: a crowded machine makes no test fail."""

from hypothesis import settings

settings.register_profile("userfw", deadline=None)
settings.load_profile("userfw")
