# compiled as it is: what every rule of a large ruleset passes through
