"""A behaviour log of users whose interests outlive their recent history.

`uic simulate` writes it into a workspace; benchmarks and tests use `SimulationPlan` and
`Simulation`. What is built in, and why:

- A user has 8 interests (categories), each with a long-term weight. An interest waxes and wanes
  with a period of 25 to 60 days and is strong for about a fifth of it, so one or two are awake at
  a time. Visits go to what is awake, so the last 50 behaviours, about a week, show only that.
- Whether an impression is clicked depends mostly on the long-term weight, awake or dormant, and
  half of the impressions are of the user's interests, mostly dormant ones. So who remembers the
  last heights of an interest, weeks ago, ranks better: the reason for a memory.
- Items have styles and users a taste for styles, the same in every category, which shows in the
  items clicked: an item id says more than its category, and one interest helps with another.
- Popularity is skewed, by category and within one; activity differs by user; a share of clicks is
  off topic; clicks lead to carts, favourites and buys; clicked impressions become behaviours.
- On a sale day visits are many and go to bargains drawn at random, the same for all users.
- With photographs (`--images`), items show one of a class that users have a taste for, and some
  items are new each day with photographs never seen before (`uic.pipelines.simulator.photographs`).
- Signals that a mean of the history cannot tell, each by a switch and off by default (`order_gain`,
  `session_gain`, …): `uic.pipelines.simulator.signals`.
- Clicks are drawn with a known probability, kept in the impressions' column `click_probability`,
  so the best reachable AUC is known: that of the probabilities themselves. What each knowledge is
  worth is known, too: `uic.pipelines.simulator.ceilings`, `uic simulate --explain`.

Scoring the last week's impressions of the default plan (2,000 users, 70 days) by the share of the
candidate's category in the last 50 behaviours gives an AUC of 0.64, by that in 60 days of history
0.73, and the true probability 0.82; `tests/pipelines/test_simulator_ladder.py` holds this.
"""

from uic.pipelines.simulator.ceilings import Ceilings, OracleImpressions, oracle_impressions
from uic.pipelines.simulator.days import DayChunk
from uic.pipelines.simulator.generator import PayloadBatch, Simulation
from uic.pipelines.simulator.oracle import BestAuc
from uic.pipelines.simulator.plan import SimulationPlan, SimulationPlanError

__all__ = [
    "BestAuc",
    "Ceilings",
    "DayChunk",
    "OracleImpressions",
    "PayloadBatch",
    "Simulation",
    "SimulationPlan",
    "SimulationPlanError",
    "oracle_impressions",
]
