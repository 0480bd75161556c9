"""What makes a memory worth something beside long-lived interests, each part with a switch.

A plan's `order_gain`, `session_gain`, … switch the signals on; `rules` says what they are. Two laws
keep every (day, block) chunk a function of the plan alone:

- What users do of their own accord (`own_acts`) is drawn for each block and day on its own, from
  hashes of (user, week) and that day's stream, and not from what was shown or clicked before.
- Whether an impression is clicked looks at the user's own acts strictly before it, of that day and
  of the `MEMORY_DAYS` before (`past`). Clicks on impressions, and what is done on a sale day,
  become behaviours, but no signal follows from them: they echo what users like, and change nothing.

A walk through the days keeps what is needed of each user's past; a chunk asked for out of turn
draws the own acts of the days before it again.
"""
