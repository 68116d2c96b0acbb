"""Classifiers of frozen features and their mean IoU equal loops, or another solver's minimum."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from downstream.probes.classifiers import LinearProbe, fit_linear, knn_scores


def test_knn_equals_loops_from_the_definition():
    torch.manual_seed(0)
    bank, queries = torch.randn(30, 6).double(), torch.randn(7, 6).double()
    labels = F.one_hot(torch.randint(0, 4, (30,)), 4).double()
    scores = knn_scores(bank, labels, queries, neighbours=5, temperature=0.1)
    for q, row in zip(queries.numpy(), scores.numpy(), strict=True):
        cosines = [q @ b / np.sqrt((q @ q) * (b @ b)) for b in bank.numpy()]
        votes = np.zeros(4)
        for index in sorted(range(30), key=lambda i: -cosines[i])[:5]:
            votes += np.exp(cosines[index] / 0.1) * labels[index].numpy()
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-9)
    assert knn_scores(bank[:3], labels[:3], queries, neighbours=5).shape == (7, 4)


def test_the_linear_probe_is_the_minimum_that_another_solver_finds():
    torch.manual_seed(1)
    features, labels = torch.randn(40, 3).double() * 5 + 2, torch.rand(40, 3).double()
    labels = labels / labels.sum(1, keepdim=True)
    probe = LinearProbe(features, labels, penalty=0.05)
    x = (features - features.mean(0)) / features.std(0, correction=0)

    def loss(flat):
        weight, bias = torch.tensor(flat[:9]).view(3, 3), torch.tensor(flat[9:])
        log = (x @ weight.T + bias).log_softmax(1)
        return float(-(labels * log).sum(1).mean() + 0.025 * weight.square().sum())

    best = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-7})
    found = loss(torch.cat((probe.weight.flatten(), probe.bias)).numpy())
    assert found <= best.fun + 1e-7
    expected = x @ torch.tensor(best.x[:9]).view(3, 3).T + torch.tensor(best.x[9:])
    torch.testing.assert_close(probe(features).softmax(1), expected.softmax(1), atol=1e-4, rtol=0)


def test_the_penalty_is_chosen_by_held_out_features():
    torch.manual_seed(2)
    noise, labels = torch.randn(60, 50), F.one_hot(torch.randint(0, 2, (60,)), 2)
    strong, weak = LinearProbe(noise, labels, 1.0), LinearProbe(noise, labels, 1e-5)
    chosen = fit_linear(noise, labels, seed=0, penalties=(1.0, 1e-5))
    torch.testing.assert_close(chosen.weight, strong.weight, atol=1e-3, rtol=1e-2)
    assert chosen.weight.norm() < 0.5 * weak.weight.norm()
    assert fit_linear(noise[:3], labels[:3], seed=0)(noise).shape == (60, 2)
