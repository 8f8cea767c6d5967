"""Losses and networks of training against hand-computed values and an independent VGG."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn, Tensor

from infinite_nature_ros.refining import build_network
from infinite_nature_ros.refining.spade import add_spectral_norm
from infinite_nature_training.discriminator import (
    Judgement,
    MultiscaleDiscriminator,
    PatchDiscriminator,
)
from infinite_nature_training.features import Vgg16
from infinite_nature_training.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    PerceptualLoss,
    reconstruction_loss,
)
from infinite_nature_training.rollout import one_normalisation, Unroller


def judgement(logits: list[float], *features: list[float]) -> Judgement:
    return Judgement(torch.tensor(logits).reshape(1, 1, 1, -1),
                     [torch.tensor(values) for values in features])


def test_reconstruction_is_the_mean_absolute_difference() -> None:
    frames = torch.tensor([0.1, 0.5, 0.9, 0.3]).reshape(1, 4, 1, 1)
    targets = torch.tensor([0.2, 0.1, 0.9, 0.0]).reshape(1, 4, 1, 1)
    assert reconstruction_loss(frames, targets).item() == pytest.approx((0.1 + 0.4 + 0.3) / 4)


def test_divergence_is_summed_over_batch_and_dimensions() -> None:
    mu, logvar = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    # Of one dimension: (mu^2 + s^2 - 1 - log s^2) / 2.
    expected = 0.5 * (1 + (math.e - 2) + 0 + 4)
    assert kl_divergence(mu, logvar).item() == pytest.approx(expected)


def test_hinge_losses() -> None:
    real = [judgement([2.0, 0.5]), judgement([-1.0])]
    fake = [judgement([-3.0, 0.0]), judgement([0.5])]
    # relu(1 - real): 0, 0.5 | 2; relu(1 + fake): 0, 1 | 1.5; then the mean over the scales.
    assert discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.5 + 2 + 1.5) / 2)
    assert generator_loss(fake).item() == pytest.approx((1.5 - 0.5) / 2)


def test_feature_matching_moves_only_the_fake() -> None:
    real = [judgement([0.0], [1.0, 2.0], [0.0]), judgement([0.0], [5.0], [1.0])]
    fake = [judgement([0.0], [2.0, 4.0], [3.0]), judgement([0.0], [5.0], [0.0])]
    for scale in [*real, *fake]:
        for feature in scale.features:
            feature.requires_grad_()
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(((1.5 + 3) / 2 + (0 + 1) / 2) / 2)
    loss.backward()
    assert all(feature.grad is None for scale in real for feature in scale.features)
    assert fake[0].features[0].grad is not None


def plain_vgg(network: Vgg16, image: Tensor) -> dict[str, np.ndarray]:
    """Activations of VGG16 as its paper draws it, by plain loops over its layers."""
    plan = [64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = (image - mean) / deviation
    found, scale, place, number = {}, 1, 0, 0
    for step in plan:
        if step == 'M':
            x = nn.MaxPool2d(2)(x)
            scale, place = scale + 1, 0
            continue
        layer = nn.Conv2d(x.shape[1], step, 3, padding=1)
        layer.load_state_dict(network.conv[number].state_dict())
        x = layer(x).clamp(min=0)
        number, place = number + 1, place + 1
        found[f'conv{scale}_{place}'] = x.detach().numpy()
    return found


def test_perceptual_loss_is_the_weighted_difference_of_vgg() -> None:
    torch.manual_seed(0)
    network = Vgg16()
    images, targets = torch.rand(2, 2, 3, 32, 48).unbind(0)
    images.requires_grad_()
    loss = PerceptualLoss(network)(images, targets)
    one, other = plain_vgg(network, images), plain_vgg(network, targets)
    expected = 255 * 0.226 * sum(
        np.abs(one[name] - other[name]).mean() * weight for name, weight in {
            'conv1_2': 1 / 2.6, 'conv2_2': 1 / 4.8, 'conv3_2': 1 / 3.7, 'conv4_2': 1 / 5.6,
            'conv5_2': 10 / 1.5}.items())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_vgg_refuses_layers_that_it_lacks() -> None:
    with pytest.raises(ValueError, match='conv6_1'):
        Vgg16()(torch.rand(1, 3, 32, 32), ['conv6_1'])


def test_the_discriminator_has_the_stated_parameters_and_shapes() -> None:
    network = MultiscaleDiscriminator()
    # With spectral norm the originals are the parameters.
    assert [sum(p.numel() for p in scale.parameters()) for scale in network.scales] == [2765761] * 2
    judgements = network(torch.rand(2, 4, 64, 96))
    assert [tuple(scale.logits.shape) for scale in judgements] == [(2, 1, 8, 12), (2, 1, 4, 6)]
    assert [feature.shape[1] for feature in judgements[0].features] == [128, 256, 512]


def test_the_second_scale_sees_halved_frames() -> None:
    network = MultiscaleDiscriminator(width=8).eval()
    frames = torch.rand(1, 4, 64, 96)
    halved = frames.reshape(1, 4, 32, 2, 48, 2).mean((3, 5))
    torch.testing.assert_close(network(frames)[1].logits, network.scales[1](halved).logits)


def test_each_judgement_sees_seventy_pixels() -> None:
    network = PatchDiscriminator(width=8)
    frames = torch.rand(1, 4, 160, 160, requires_grad=True)
    # Instance norm looks at everything: without it what remains is the convolutions' own sight.
    original = nn.functional.instance_norm
    nn.functional.instance_norm = lambda x: x
    try:
        network(frames).logits[0, 0, 10, 10].backward()
    finally:
        nn.functional.instance_norm = original
    rows = frames.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize('name', ['infinite-nature-tiny', 'residual-tiny'])
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    refiner = add_spectral_norm(build_network(name, image_size=(64, 96))).train()
    for parameter in refiner.generator.conv.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # of zeros nothing goes back through
    judge = MultiscaleDiscriminator(width=8).train()
    poses = torch.eye(3, 4).repeat(1, 3, 1, 1)
    poses[:, :, 2, 3] = -0.2 * torch.arange(3)
    noise = torch.randn(1, 256)

    @one_normalisation
    def learn() -> None:
        unrolled = Unroller(refiner, checkpointing=True)(
            torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96) * 0.5 + 0.2, poses,
            torch.tensor([[0.8, 1.2, 0.5, 0.5]]), noise)
        loss = generator_loss(judge(unrolled.frames.flatten(0, 1)))
        (loss + kl_divergence(unrolled.mu, unrolled.logvar)).backward()

    learn()
    for network in (refiner, judge):
        for path, parameter in network.named_parameters():
            assert parameter.grad is not None, path
            assert torch.isfinite(parameter.grad).all(), path
    # What comes right before an instance norm has no effect on its mean: biases there get none.
    moved = [parameter.grad.abs().max() > 0 for parameter in refiner.parameters()]
    assert sum(moved) > 0.8 * len(moved)


def test_checkpointing_changes_memory_but_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        refiner = add_spectral_norm(
            build_network('infinite-nature-tiny', image_size=(64, 96))).train()
        poses = torch.eye(3, 4).repeat(1, 4, 1, 1)
        poses[:, :, 2, 3] = -0.2 * torch.arange(4)
        unroller = Unroller(refiner, checkpointing=checkpointing)

        @one_normalisation
        def learn(unroller: Unroller = unroller, poses: Tensor = poses) -> None:
            torch.manual_seed(1)
            unrolled = unroller(torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96) * 0.5 + 0.2,
                                poses, torch.tensor([[0.8, 1.2, 0.5, 0.5]]))
            unrolled.frames.square().mean().backward()

        learn()
        gradients.append([parameter.grad for name, parameter in refiner.named_parameters()
                          if 'logvar' not in name])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_steps_in_front_of_a_roll_out_have_no_gradient() -> None:
    torch.manual_seed(0)
    refiner = build_network('residual-tiny', image_size=(64, 96))
    nn.init.normal_(refiner.generator.conv.weight, std=0.02)
    unroller = Unroller(refiner)
    poses = torch.eye(3, 4).repeat(1, 5, 1, 1)
    poses[:, :, 2, 3] = -0.1 * torch.arange(5)
    first = (torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96) * 0.5 + 0.2)
    intrinsics = torch.tensor([[0.8, 1.2, 0.5, 0.5]])
    whole = unroller(*first, poses, intrinsics)
    part = unroller(*first, poses, intrinsics, lead=2)
    assert part.lead == 2
    # Without gradient the renderer's fused path runs, which rounds in its own way.
    torch.testing.assert_close(part.frames, whole.frames[:, 2:], atol=1e-3, rtol=0)
    torch.testing.assert_close(part.known, whole.known[:, 2:], atol=1e-3, rtol=0)
    # What the third frame depends on ends at the second.
    gradients = {}
    for name, frame in (('part', part.frames[:, 0]), ('whole', whole.frames[:, 2])):
        weight = refiner.generator.conv.weight
        gradients[name], = torch.autograd.grad(frame.square().mean(), weight)
    assert gradients['part'].abs().max() > 0
    assert not torch.allclose(gradients['part'], gradients['whole'])
