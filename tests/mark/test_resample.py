"""Resampling by matrices against what it must equal."""

from __future__ import annotations

import torch
from torch.nn import functional

from gateway.mark.resample import apply_separable, resample_matrix, resize


def test_resize_equals_antialiased_interpolation() -> None:
    images = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    for shape in ((25, 35), (33, 20), (100, 70)):
        wanted = functional.interpolate(images, shape, mode="bilinear", antialias=True, align_corners=False)
        got = resize(images, *shape)
        # at the very border the two treat missing neighbours differently
        assert torch.allclose(got[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], atol=1e-5)


def test_crop_and_flip() -> None:
    images = torch.arange(8.0).expand(1, 1, 8, 8)
    rows = resample_matrix(8, 8, torch.tensor([0.0]), torch.tensor([8.0]))
    columns = resample_matrix(8, 4, torch.tensor([6.0]), torch.tensor([2.0]))
    assert apply_separable(images, rows, columns)[0, 0, 0].tolist() == [5.0, 4.0, 3.0, 2.0]


def test_matrix_rows_sum_to_one_even_outside() -> None:
    matrix = resample_matrix(10, 7, torch.tensor([-30.0, 2.0]), torch.tensor([40.0, 3.0]))
    assert torch.allclose(matrix.sum(2), torch.ones(2, 7))


def test_without_the_zeros_of_the_matrix_it_is_the_same() -> None:
    images = torch.rand(2, 3, 130, 97, generator=torch.Generator().manual_seed(0))
    for shape in ((65, 31), (37, 97), (200, 150), (1, 1)):
        asked = images.clone().requires_grad_(True)  # through the whole matrix
        assert torch.allclose(resize(images, *shape), resize(asked, *shape).detach(), atol=1e-6)
