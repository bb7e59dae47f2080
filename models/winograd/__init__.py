"""3x3 convolutions by Winograd's algorithm, as machine code for a CPU; `models/winograd/layers.py` is the way in."""
