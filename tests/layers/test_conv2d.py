import pytest
import torch
import torch.nn.functional as F

from gradlab.layers import Conv2d, conv2d


def test_complex_values_conjugate_what_they_saved() -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.complex128, requires_grad=True)
    W = torch.randn(3, 2, 2, 2, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(conv2d, (x, W))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_same_padding_of_an_even_kernel_is_torchs() -> None:
    x, W = torch.randn(1, 1, 5, 6), torch.randn(1, 1, 2, 4)
    for dilation in (1, 2, 3):
        ours = conv2d(x, W, padding="same", dilation=dilation)
        expected = F.conv2d(x, W, padding="same", dilation=dilation)
        torch.testing.assert_close(ours, expected)


def test_channels_last_stays_channels_last() -> None:
    layer = Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    y.sum().backward()
    for tensor in (y, x.grad, layer.weight.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_compile_and_move_between_dtypes(mode: str) -> None:
    layer = Conv2d(2, 3, 3, padding=1, padding_mode=mode).to(torch.bfloat16)
    layer(torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad.dtype == torch.bfloat16


def test_one_number_in_a_list_counts_for_both_axes() -> None:
    x, W = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 2, 2)
    options = {"stride": [2], "padding": [1], "dilation": [1]}
    torch.testing.assert_close(conv2d(x, W, **options), F.conv2d(x, W, **options))
