"""Quality gates: is this log, or this set of samples, fit to be used?

The facts of a table are counted once, by Arrow and numpy, into a small frame with a row a day
(`facts`, `positions`, `sample_facts`); a Great Expectations suite judges that frame (`checks`,
`suite`); a check that fails is run again over the rows of its days for examples (`examples`); the
page for people is Data Docs (`page`). `gates` puts them together.

Great Expectations takes seconds to import, so only `suite` and `page` import it, inside functions.
"""
