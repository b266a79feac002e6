"""The geometry decoder with everything folded that can be: what a field is evaluated with, in few passes over memory.

For a point p with embedding f, geometry decoder and this compute the same (docs/model.md, section 7):

    x0 = W_p f + b_p,  q = norm_q(W_q ln_1(x0)),  x1 = x0 + W_o attention(q, k, v) + b_o
    x2 = x1 + W_2 gelu(W_1 ln_3(x1) + b_1) + b_2,  logit = w . ln_post(x2) + b

ln_1 only takes a mean away and divides by a deviation, and the mean of x0 is linear in f. So W_q, ln_1 and W_p are one
(C, K) matrix, K being about 64, followed by one factor a point: a sixteenth of the multiplications of W_q alone, and
no pass over x0 at all. b_o moves into b_p for what is carried past the attention, so that its product adds to x0 where
it stands; b_2 moves behind the last product likewise. This module does not know what is searched for in the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.hunyuan3d.device.cpu_parts import side_by_side
from backend.hunyuan3d.kernels.embedding import Embedding, embedded_points
from backend.hunyuan3d.kernels.norm_dot import NormDotWeights, norm_dot
from backend.hunyuan3d.kernels.query_norm import QueryWeights, query_heads

# Embeddings are filled up to a multiple of this, which products on a GPU need.
_ALIGNED = 16
# On a CPU each thread makes so many bytes of hidden values at once: what one product leaves, the next one finds cached.
_CACHED = 4 << 20
_ROWS = 64


@dataclass(frozen=True, eq=False)
class FieldDecoder:
    """Points and one image's keys and values to logits; made by `GeoDecoder.folded`.

    carried : (C, K), W_p with b_p + b_o. attention_out : W_o. ln_3 : the norm
    before fc (W_1, b_1). fc_out : W_2. last : b_2, ln_post, w and b. kernels : whether Triton kernels are used where
    they run.
    """

    embedding: Embedding
    query: QueryWeights
    carried: Tensor
    attention_out: Tensor
    ln_3: nn.LayerNorm
    fc: nn.Linear
    fc_out: Tensor
    last: NormDotWeights
    kernels: bool = True

    def __call__(self, points: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Evaluate at points (Q, 3) float32, with k, v : (1, H, N, d) of one image: logits (Q,) float32."""
        if points.device.type != "cpu" or len(points) < 2 * self._at_once:
            return self._logits(points, k, v)
        # The last part holds the rest as well: a product sums its last few rows in another order than the others, so
        # that they have to stay the last ones for the logits to be those of one call, to the bit.
        ends = range(self._at_once, len(points) - self._at_once + 1, self._at_once)
        parts = torch.tensor_split(points, list(ends))
        return torch.cat(side_by_side(lambda part: self._logits(part, k, v), parts))

    @property
    def _at_once(self) -> int:
        """Return how many points are evaluated together on a CPU, and less than twice as many at the end."""
        points = _CACHED // (self.fc.out_features * self.fc.weight.element_size())
        return max(_ROWS, points // _ROWS * _ROWS)

    def _logits(self, points: Tensor, k: Tensor, v: Tensor) -> Tensor:
        f = self.embedded(points)
        q = query_heads(f, self.query, kernels=self.kernels)
        # Heads stay side by side in memory, so that neither queries nor results are copied into place.
        attended = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k, v)[0].transpose(0, 1).flatten(1)
        x = F.linear(f, self.carried).addmm_(attended, self.attention_out.t())
        hidden = self._hidden(self.ln_3(x))
        return norm_dot(x.addmm_(hidden, self.fc_out.t()), self.last, kernels=self.kernels)

    def _hidden(self, x: Tensor) -> Tensor:
        """Return gelu(W_1 x + b_1), (Q, 4C).

        In half precision on a GPU the product's own end applies GELU, by its formula with tanh. That is off by up to
        5e-4 where the exact one is rounded by up to 4e-3; logits near the surface differ by 1.5e-4 and are 3e-3 from
        float32 either way (benchmarks/results/decode_stages.md).
        """
        if self.kernels and x.is_cuda and x.dtype != torch.float32:
            return torch._addmm_activation(self.fc.bias, x, self.fc.weight.t(), use_gelu=True)
        return F.gelu(self.fc(x))

    def embedded(self, points: Tensor) -> Tensor:
        """Embed points (Q, 3) float32 as (Q, K): embedding, a one, zeros."""
        width, dtype = self.carried.shape[1], self.carried.dtype
        return embedded_points(points, self.embedding, width, dtype, kernels=self.kernels)


def with_bias(weight: Tensor, bias: Tensor) -> Tensor:
    """Join weight (C, F) and bias (C,) to a matrix (C, K) float32 for embeddings that end in a one and zeros."""
    columns = weight.shape[1] + 1
    width = max(-(-columns // _ALIGNED) * _ALIGNED, 1 << (columns - 1).bit_length())
    joined = torch.zeros((weight.shape[0], width), dtype=torch.float32, device=weight.device)
    joined[:, : columns - 1] = weight.float()
    joined[:, columns - 1] = bias.float()
    return joined


def fold_query(
    embedding: nn.Linear, norm: nn.LayerNorm, query: nn.Linear, heads_norm: nn.Module, heads: int
) -> QueryWeights:
    """Fold the projection of embeddings, the norm of its result and the projection to queries into one."""
    dtype = query.weight.dtype
    joined = with_bias(embedding.weight, embedding.bias)
    centred = joined - joined.mean(0)
    weight = (query.weight.float() * norm.weight.float()) @ centred
    shift = query.weight.float() @ norm.bias.float()
    if query.bias is not None:
        shift = shift + query.bias.float()
    inner = heads_norm if isinstance(heads_norm, nn.LayerNorm) else None
    return QueryWeights(
        centred=centred.to(dtype),
        weight=weight.to(dtype),
        shift=shift,
        heads=heads,
        eps=norm.eps,
        gain=None if inner is None else inner.weight,
        offset=None if inner is None else inner.bias,
        heads_eps=0.0 if inner is None else inner.eps,
    )
