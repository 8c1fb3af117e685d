"""`make demo`: the main job on real traffic, checked and reported.

Laws
- Every statement in the report was measured in this run; a check that could not be made has failed.
- Exit status 0 only if all checks held. Whatever was started is taken down, unless KEEP=1.
"""
