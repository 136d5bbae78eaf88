"""The same model with gradlab's layers and with torch.nn's learns the same."""

from types import ModuleType

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from gradlab import layers


def network(library: ModuleType) -> nn.Module:
    """Most Modules of the catalogue, in one model for 8×8 images."""
    torch.manual_seed(0)
    return nn.Sequential(
        library.Conv2d(1, 8, 3, padding=1),
        library.ReLU(),
        library.MaxPool2d(2),
        nn.Flatten(),
        library.Linear(128, 32),
        library.LayerNorm(32),
        library.GELU(),
        library.Linear(32, 32),
        library.Tanh(),
        library.Linear(32, 32),
        library.Sigmoid(),
        library.Linear(32, 10),
    )


def losses(library: ModuleType, dtype: torch.dtype, steps: int = 200) -> torch.Tensor:
    model = network(library).to(dtype)
    cross_entropy = library.CrossEntropyLoss(label_smoothing=0.1)
    squared_error, softmax = library.MSELoss(), library.Softmax(-1)
    log_softmax = library.LogSoftmax(-1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    images, labels = load_digits(return_X_y=True)
    x_all = torch.from_numpy(images).to(dtype).view(-1, 1, 8, 8) / 16
    y_all = torch.from_numpy(labels).long()
    seen = []
    for step in range(steps):
        rows = torch.arange(32 * step, 32 * step + 32) % len(x_all)
        x, y = x_all[rows], y_all[rows]
        scores = model(x)
        one_hot = torch.eye(10, dtype=dtype)[y]
        loss = cross_entropy(scores, y) + squared_error(softmax(scores), one_hot)
        loss = loss - 0.01 * log_softmax(scores)[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.detach().double())
    return torch.stack(seen)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
def test_losses_are_equal_for_200_steps(dtype: torch.dtype, rtol: float) -> None:
    ours, torchs = losses(layers, dtype), losses(nn, dtype)
    assert torchs[-20:].mean() < 0.5 * torchs[:20].mean(), "nothing was learnt"
    error = ((ours - torchs).abs() / torchs).max().item()
    print(f"largest relative difference of the losses in {dtype}: {error:.3g}")
    assert error <= rtol
