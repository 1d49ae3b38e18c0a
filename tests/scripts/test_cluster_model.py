"""The model of a cluster: what follows from its rules without chance, and what the rule for warm models is worth."""

from __future__ import annotations

import pytest

from cluster_model import ClusterModel, Costs, Kind

PREVIEW, FINAL = Kind("preview", 0.5, 2.0), Kind("final", 0.5, 10.0, 15.0, 2)


def test_shots_wait_for_each_other_and_models_are_loaded_once():
    model = ClusterModel(1, Costs(front_job=0.5, dispatch=1.0))
    for at in (0.0, 0.0, 100.0):
        model.send_at(at, FINAL, "final 0")
    results = model.run()
    # The first waits for the front; the second for the first, its load and the pause behind it.
    assert results.waits == pytest.approx([0.5, 26.5, 0.5])
    assert results.turnarounds == pytest.approx([25.5, 36.5, 10.5])
    assert results.makespan == pytest.approx(110.5) and results.loading == pytest.approx(15.0 / 110.5)


def test_a_shot_waits_for_warm_models_unless_another_one_does():
    model = ClusterModel(2, Costs())
    model.send_at(0.0, FINAL, "final 0")
    for _ in range(2):
        model.send_at(18.0, FINAL, "final 0")  # while the first is computed, until 25
    results = model.run()
    assert results.waits == pytest.approx([0.0, 7.0, 0.0]), "ends in this order: the other loads on the other worker"


def test_a_full_network_and_signs_of_life_are_counted():
    costs = Costs(front_job=0.01, front_beat=0.001, beat_interval=2.0, megabytes_a_second=10.0)
    assert costs.front_share(1000, 20.0) == pytest.approx(0.7)
    model = ClusterModel(4, costs, clients=1000)
    for _ in range(2):
        model.send_at(0.0, Kind("preview", 1.0, 1.0, megabytes=30.0), "")
    assert model.run().waits == pytest.approx([3.02, 6.02]), "0.01 s of a front that is half free, and 3 s a scene"


@pytest.mark.parametrize("seed", range(3))
def test_where_workers_are_full_the_rule_saves_loads_and_makes_more_shots(seed):
    found = {}
    for warm in (True, False):
        model = ClusterModel(16, Costs(), warm=warm, seed=seed)
        for _ in range(80):
            model.add_artist([PREVIEW, FINAL], 10.0)
        found[warm] = model.run(1800.0)
    assert found[True].loading < 0.5 * found[False].loading
    assert len(found[True].waits) > 1.2 * len(found[False].waits)
    assert found[True].wait(0.5) < found[False].wait(0.5)
