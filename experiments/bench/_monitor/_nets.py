"""The networks that are trained, watched and unwatched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

LAYERS, WIDTH, BATCH = 75, 64, 48
VOCABULARY, CONTEXT, SEQUENCES = 256, 64, 4


@dataclass(frozen=True)
class Training:
    """A network and what one step of its training is.

    Attributes:
        model: The network.
        optimizer: Its optimizer.
        step: Forward, backward, update.
    """

    model: nn.Module
    optimizer: Optimizer
    step: Callable[[], object]


def training(
    model: nn.Module, optimizer: Optimizer, loss: Callable[[], Tensor]
) -> Training:
    """A training by a loss.

    Args:
        model: The network.
        optimizer: Its optimizer.
        loss: Runs the network forward.
    """

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return Training(model, optimizer, step)


def layers(healthy: bool = True) -> nn.Sequential:
    """150 tensors: 75 times a linear layer of 64 units and a ReLU.

    Args:
        healthy: Whether by He's initialization, which keeps the gradient's size over
            all layers; else as torch does by default: it falls below 1e-15.
    """
    net = nn.Sequential()
    for _ in range(LAYERS):
        linear = nn.Linear(WIDTH, WIDTH)
        if healthy:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        net.extend([linear, nn.ReLU()])
    return net


def small_tensors(healthy: bool = True) -> Training:
    """SGD on the 150 tensors, 48 rows a batch: a step takes 4 to 5 ms.

    Args:
        healthy: See `layers`.
    """
    torch.manual_seed(0)
    model = layers(healthy)
    x, y = torch.randn(2, BATCH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    return training(model, optimizer, lambda: functional.mse_loss(model(x), y))


def vanishing() -> Training:
    """`small_tensors` with a gradient below 1e-15, which is measured in float64."""
    return small_tensors(healthy=False)


class Block(nn.Module):
    """A pre-norm transformer block, causal.

    Args:
        width: Of the residual stream.
        heads: Of attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Adds attention, then the two-layer network."""
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A language model of bytes.

    Args:
        width: Of the residual stream.
        heads: Of attention.
        depth: How many blocks.
    """

    def __init__(self, width: int = 200, heads: int = 4, depth: int = 12) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at each place."""
        places = torch.arange(tokens.shape[1])
        x = self.token(tokens) + self.position(places)
        return self.head(self.norm(self.blocks(x)))


def gpt() -> Training:
    """AdamW on `GPT`, 5.9 million parameters, 4 sequences of 64 tokens a batch.

    So few tokens are the worst case: what watching parameters costs does not depend on
    the batch.
    """
    torch.manual_seed(0)
    model = GPT()
    tokens = torch.randint(VOCABULARY, (SEQUENCES, CONTEXT + 1))

    def loss() -> Tensor:
        logits = model(tokens[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return training(model, torch.optim.AdamW(model.parameters(), 1e-4), loss)


def tiny_tensors(tensors: int) -> Training:
    """SGD on tensors of 4 and 2 entries, whose gradients are there already.

    Args:
        tensors: How many, an even number.
    """
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(tensors // 2)))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    return Training(model, optimizer, optimizer.step)
