"""Three vectors at right angles: what the small collections of many tests hold."""

DIM = 4
A = [1.0, 0.0, 0.0, 0.0]
B = [0.0, 1.0, 0.0, 0.0]
C = [0.0, 0.0, 1.0, 0.0]
