"""The arithmetic of BatchNorm in four steps, by torch's kernels or, under a compiler, in operations that it fuses.

Batches (V x B, C, H, W) hold V views one after the other, each with statistics of its own: (V, C), in float32 at least.
"""

import torch
from torch import Tensor

aten = torch.ops.aten


def exact(features: Tensor) -> torch.dtype:
    """The type that statistics of these features are computed in."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def statistics(features: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each view's channels."""
    if torch.compiler.is_compiling():
        apart = features.to(exact(features)).unflatten(0, (views, -1))
        variance, mean = torch.var_mean(apart, dim=(1, 3, 4), correction=0)
        return mean, variance
    found = [_statistics(view) for view in features.chunk(views)]
    return torch.stack([mean for mean, _ in found]), torch.stack([variance for _, variance in found])


def _statistics(view: Tensor) -> tuple[Tensor, Tensor]:
    if view.is_cuda:
        eps = 1e-5  # the kernel gives 1 / sqrt(variance + eps)
        mean, inverse = torch.batch_norm_stats(view, eps)
        return mean, (inverse.square().reciprocal() - eps).clamp(min=0)
    unused = torch.zeros(2, view.shape[1], dtype=exact(view))  # the kernel's own running statistics, its precision
    return torch.batch_norm_update_stats(view, unused[0], unused[1], momentum=0.0)


def normalise(features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """weight x (features - mean) / sqrt(variance + eps) + bias."""
    if torch.compiler.is_compiling():
        scale = weight * torch.rsqrt(variance + eps)
        return (features.to(scale.dtype) * _each(scale, features) + _each(bias - mean * scale, features)).to(
            features.dtype
        )
    if len(mean) == 1:
        return torch.batch_norm(features, weight, bias, mean[0], variance[0], False, 0.0, eps, False)
    out = torch.empty_like(features)
    for view, place, of_view, spread in zip(
        features.chunk(len(mean)), out.chunk(len(mean)), mean, variance, strict=True
    ):
        _into(place, view, weight, bias, of_view, spread, eps)
    return out


def _into(out: Tensor, view: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> None:
    if view.is_cuda:
        aten.batch_norm_elemt.out(view, weight, bias, mean, torch.rsqrt(variance + eps), eps, out=out)
        return
    unused = view.new_empty(0, dtype=mean.dtype)
    aten.native_batch_norm.out(
        view, weight, bias, mean, variance, False, 0.0, eps, out=out, save_mean=unused, save_invstd=unused.clone()
    )


def gradients(gradient: Tensor, features: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Sums (2, V, C) of the gradient, and of the gradient times the normalised features: those of bias and weight."""
    inverse = torch.rsqrt(variance + eps)
    if torch.compiler.is_compiling():
        apart = gradient.to(mean.dtype).unflatten(0, (len(mean), -1))
        centred = features.to(mean.dtype).unflatten(0, (len(mean), -1)) - mean[:, None, :, None, None]
        return torch.stack((apart.sum(dim=(1, 3, 4)), (apart * centred).sum(dim=(1, 3, 4)) * inverse))
    found = [
        _gradients(*each, eps)
        for each in zip(gradient.chunk(len(mean)), features.chunk(len(mean)), mean, variance, inverse, strict=True)
    ]
    return torch.stack([torch.stack(pair) for pair in zip(*found, strict=True)])


def _gradients(
    gradient: Tensor, view: Tensor, mean: Tensor, variance: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    if view.is_cuda:
        reduced = torch.batch_norm_backward_reduce(gradient, view, mean, inverse, None, True, False, False)
        return reduced[0], reduced[1] * inverse
    ones = torch.ones_like(mean)
    known = (ones, mean, variance, None, None, False, eps, [False, True, True])
    _, of_weight, of_bias = aten.native_batch_norm_backward(gradient, view, *known)
    return of_bias, of_weight


def input_gradient(
    gradient: Tensor, features: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, means: Tensor, eps: float
) -> Tensor:
    """The gradient for the features: also through the statistics, given the means of what `gradients` sums.

    weight / deviation x (gradient - its mean - normalised features x the mean of their product with it).
    """
    inverse = torch.rsqrt(variance + eps)
    if torch.compiler.is_compiling():
        scale = weight * inverse
        slope = -scale * inverse * means[1]
        offset = -scale * means[0] - slope * mean
        through = features.to(mean.dtype) * _each(slope, features) + _each(offset, features)
        return (gradient.to(mean.dtype) * _each(scale, features) + through).to(features.dtype)
    views = zip(gradient.chunk(len(mean)), features.chunk(len(mean)), mean, inverse, *means, strict=True)
    found = [_input_gradient(each, view, weight, *of_view) for each, view, *of_view in views]
    return found[0] if len(found) == 1 else torch.cat(found)


def _input_gradient(
    gradient: Tensor, view: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, of_bias: Tensor, of_weight: Tensor
) -> Tensor:
    if view.is_cuda:
        count = torch.ones((1,), dtype=torch.int32, device=view.device)  # the sums are divided already
        product = of_weight / inverse  # the kernel takes the product with features that are centred, not scaled
        return torch.batch_norm_backward_elemt(gradient, view, mean, inverse, weight, of_bias, product, count)
    # As BatchNorms of their own, with a variance that makes the deviation what it is: two passes of torch's kernel.
    nothing, scale = torch.zeros_like(mean), weight * inverse
    one = torch.ones_like(mean)
    direct = torch.batch_norm(gradient, scale, nothing, nothing, one, False, 0.0, 0.0, False)
    slope = scale * inverse * of_weight
    return direct.sub_(torch.batch_norm(view, slope, scale * of_bias, mean, one, False, 0.0, 0.0, False))


def _each(of_views: Tensor, features: Tensor) -> Tensor:
    """(V, C) -> (V x B, C, 1, 1): the numbers of its view for each image."""
    views, channels = of_views.shape
    images = features.shape[0] // views
    return of_views[:, None].expand(views, images, channels).reshape(-1, channels, 1, 1)
