"""The differential test: random rulesets and random frames, through the kernel and through userfw's engine.

Laws
- Everything comes from one `random.Random`: a seed gives the same rulesets and the same frames for ever.
- The generator writes what nft 1.0.6 accepts; a ruleset that one side refuses and the other takes is a finding too.
- What a router chooses at random (ports beyond the pools, identifications) is masked; checksums must be right nevertheless.
"""
