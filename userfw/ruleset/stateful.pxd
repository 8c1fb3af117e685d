# compiled as it is: what every element of a map passes through
