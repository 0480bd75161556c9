"""A table over 1, 2 and 4 processes is one table; a process that dies is named."""

import json
import multiprocessing
import os
import time
import traceback

import numpy as np
import pytest
import torch
import torch.distributed as dist

from uic.models.rankers.lmn.lmn import ProductKeyMemory
from uic.models.sharding.router import Router, ShardError
from uic.models.sharding.table import ShardedTable
from uic.models.sharding.world import RankDiedError, ShardWorld
from uic.models.training.optimizer import RowAdam

pytestmark = pytest.mark.slow

ROWS, WIDTH, STEPS, BATCH = 37, 3, 10, 8


def requests(step):
    """Ids, weights and wanted outputs of the whole batch of a step; ids repeat across ranks."""
    random = np.random.default_rng(step)
    ids = torch.from_numpy(random.integers(0, ROWS, (BATCH, 2)) % (5 if step == 3 else ROWS))
    weights = torch.from_numpy(random.random((BATCH, 2)))
    wanted = torch.from_numpy(random.normal(size=(BATCH, WIDTH)))
    return ids, weights, wanted


def train(table, part, step, apply):
    """One step on a part of the batch: the loss is a sum over the part, divided by the whole."""
    ids, weights, wanted = (values[part] for values in requests(step))
    output = table.weighted_sum(ids, weights) + table.take(ids[:, 0])
    loss = ((output - wanted) ** 2).sum() / BATCH
    loss.backward()
    apply()
    return output.detach(), loss.item()


def move(table, step):
    """One table alone: what a run does with all of its tables."""
    table.push()
    table.move(0.05, step + 1)


def ids_of(world, rows):
    """The ids of this rank's rows."""
    return torch.arange(world.rank, rows, world.size)


def part_of(world):
    """Ranks get unequal parts; of 4, one gets nothing."""
    cuts = {1: [0, 8], 2: [0, 3, 8], 4: [0, 1, 1, 5, 8]}[world.size]
    return slice(cuts[world.rank], cuts[world.rank + 1])


# ------------------------------------------------------------------- what the processes run
def learn(world, folder):
    """Ten steps; rank 0's folder gets every rank's outputs, rows and traffic."""
    table = ShardedTable(world, ROWS, WIDTH, 0.5, dtype=torch.float64)
    outputs = [
        train(table, part_of(world), step, lambda step=step: move(table, step))
        for step in range(STEPS)
    ]
    ids = ids_of(world, ROWS)
    np.savez(
        folder / f"rank-{world.rank}-of-{world.size}.npz",
        outputs=np.concatenate([output.numpy() for output, _ in outputs]).reshape(-1, WIDTH),
        ids=ids.numpy(),
        rows=table.weight.numpy(),
        mean=table.adam.mean.numpy(),
        traffic=np.array([vars(world.traffic)[name] for name in ("ids", "values", "gradients")]),
    )


def lose_rank_1(world, folder):
    """Rank 1 ends before the third step."""
    table = ShardedTable(world, ROWS, WIDTH, 0.5)
    for step in range(STEPS):
        if step == 2 and world.rank == 1:
            os._exit(1)
        table.take(torch.arange(ROWS))
        move(table, step)


def compute_answers(world, folder):
    """Owners compute what they answer from stored rows, each once, and get its gradient."""
    router = Router(world, 10)
    stored = ids_of(world, 10).double()
    calls = []

    def answer(rows):
        calls.append(stored[rows].tolist())
        return torch.stack([stored[rows] ** 2, -stored[rows]], dim=1)

    route = router.route(torch.tensor([[7, 2], [7, 7]]))
    values = router.fetch(route, answer)[route.index]
    assert values[..., 0].tolist() == [[49, 4], [49, 49]]
    assert values[..., 1].tolist() == [[-7, -2], [-7, -7]]
    assert len(calls) == 1
    assert calls[0] == [value for value in (2.0, 7.0) if value % world.size == world.rank]
    gradient = route.distinct.double().unsqueeze(1).expand(-1, 2)
    owned = router.push(route, gradient)
    assert owned[:, 0].tolist() == [world.size * value for value in calls[0]]


def recall(world, folder):
    """LMN's memory with its values on all ranks recalls what it does with one table."""
    torch.manual_seed(1)
    table = ShardedTable(world, 36, WIDTH, 1.0)
    shared = ProductKeyMemory(6, WIDTH, 4, 2, table)
    alone = ProductKeyMemory(6, WIDTH, 4, 2, ShardedTable(ShardWorld(), 36, WIDTH, 1.0))
    keys = {key: value for key, value in shared.state_dict().items() if "values" not in key}
    alone.load_state_dict(keys, strict=False)
    queries = torch.randn(5 + world.rank, WIDTH)
    assert torch.equal(shared(queries), alone(queries))
    shared(queries).sum().backward()
    move(table, 0)


def run(size, work, folder):
    """Run `work` on `size` ranks; returns what each raised, or an exit status, or None."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    # Not by fork: other tests leave threads in this process, whose locks a child would inherit.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uic.models.sharding.table", "uic.models.layers.row_table"])
    processes = [
        context.Process(target=_child, args=(store.port, rank, size, work, folder))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    until = time.monotonic() + 60
    for process in processes:
        process.join(max(until - time.monotonic(), 0))
        if process.is_alive():
            process.kill()
            pytest.fail(f"a rank of {work.__name__} hangs")
    found = []
    for rank, process in enumerate(processes):
        path = folder / f"error-{rank}.json"
        found.append(json.loads(path.read_text()) if path.exists() else process.exitcode or None)
        path.unlink(missing_ok=True)
    return found


def _child(port, rank, size, work, folder):
    status = 0
    try:
        store = dist.TCPStore("127.0.0.1", port, is_master=False)
        world = ShardWorld.join(store, rank, size, timeout_seconds=30)
        work(world, folder)
        world.leave()
    except BaseException as error:
        traceback.print_exc()
        (folder / f"error-{rank}.json").write_text(json.dumps([type(error).__name__, str(error)]))
        status = 3
    os._exit(status)  # without torch's shutdown, which waits for ranks that are gone


# ------------------------------------------------------------------------------- the tests
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the results of 1, 2 and 4 ranks."""
    folder = tmp_path_factory.mktemp("sharded")
    for size in (1, 2, 4):
        assert run(size, learn, folder) == [None] * size
    return folder


def one_table(steps):
    """The same training on one plain table."""
    from uic.models.layers.row_table import RowTable

    table = RowTable(ROWS, WIDTH, 1.0).double()
    start = ShardedTable(ShardWorld(), ROWS, WIDTH, 0.5).weight
    table.weight.data = start.detach().double()
    adam = RowAdam(table.weight.data)
    outputs = []
    for step in range(steps):

        def apply(count=step + 1):
            taken = table.taken()
            adam.step(taken.rows, taken.leaf.grad, 0.05, count)

        outputs.append(train(table, slice(0, BATCH), step, apply)[0].numpy())
    return np.array(outputs), table.weight.numpy(), adam.mean.numpy()


def gathered(folder, prefix, size, name):
    whole = np.full((ROWS, WIDTH), np.nan)
    for rank in range(size):
        with np.load(folder / f"{prefix}-{rank}-of-{size}.npz") as part:
            whole[part["ids"]] = part[name]
    return whole


@pytest.mark.parametrize("size", [1, 2, 4])
def test_many_ranks_are_one_table(size, trained):
    outputs, rows, mean = one_table(STEPS)
    parts = []
    for rank in range(size):
        with np.load(trained / f"rank-{rank}-of-{size}.npz") as found:
            parts.append(found["outputs"].reshape(STEPS, -1, WIDTH))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gathered(trained, "rank", size, "rows"), rows, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gathered(trained, "rank", size, "mean"), mean, rtol=0, atol=1e-12)
    start = ShardedTable(ShardWorld(), ROWS, WIDTH, 0.5).weight.numpy()
    assert np.abs(rows - start).max() > 0.1


def test_duplicates_do_not_travel(trained):
    """Bytes are those of distinct ids of the other rank: ids 8, values and gradients 3 x 8."""
    expected = 0
    for step in range(STEPS):
        own = requests(step)[0][:3]
        for wanted in (own, own[:, 0]):
            distinct = np.unique(wanted.numpy())
            expected += np.count_nonzero(distinct % 2 == 1)
    with np.load(trained / "rank-0-of-2.npz") as found:
        ids, _, gradients = found["traffic"]
    assert ids == 8 * expected
    assert gradients == 8 * WIDTH * expected
    with np.load(trained / "rank-0-of-1.npz") as found:
        assert found["traffic"].tolist() == [0, 0, 0]


def test_owners_may_compute_what_they_answer(tmp_path):
    compute_answers(ShardWorld(), tmp_path)
    assert run(2, compute_answers, tmp_path) == [None, None]


def test_a_large_memory_may_lie_on_many_ranks(tmp_path):
    assert run(2, recall, tmp_path) == [None, None]


def test_a_rank_that_dies_is_named_by_the_others(tmp_path):
    started = time.monotonic()
    found = run(3, lose_rank_1, tmp_path)
    assert found[1] == 1
    for rank in (0, 2):
        kind, text = found[rank]
        assert kind == RankDiedError.__name__
        assert text.startswith("rank 1 of 3 ended or does not answer")
    assert time.monotonic() - started < 40


def test_more_ranks_than_rows_are_refused():
    with pytest.raises(ShardError, match="4 ranks for a table of 3 rows; use at most 3 ranks"):
        Router(ShardWorld(0, 4), 3)


def test_an_id_outside_the_table_is_refused():
    table = ShardedTable(ShardWorld(), 5, 2, 1.0)
    with pytest.raises(ShardError, match="ids from 0 to 5; the table has 5 rows"):
        table.take(torch.tensor([0, 5]))
