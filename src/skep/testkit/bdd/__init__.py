"""BDD that cannot lie: pytest-bdd with async steps, a lint at collection, and events that survive xdist.

| file | what it alone knows |
| --- | --- |
| `binding` | which pytest item is which scenario, and its id |
| `definitions` | step definitions: where they stand, who can see them, which match |
| `lint` | the rules, and what each says |
| `coverage` | features and scenarios that nothing binds, steps that nothing uses |
| `asserting` | whether a `Then` asserts: read from its source, and seen while it runs |
| `snippet` | the step definition to paste |
| `running` | how a step function is called |
| `recording` | what a scenario did, as it happens |
| `gherkin` | feature files as Cucumber Messages |
| `proving` | events into a proof bundle |
| `requirements` | requirement tables and what traces to them |
| `session` | the hooks that tie these together |
"""
