"""The training loop.

In: a method, the models of a run (`build`), the pool's prompts, and a judge that answers from another process. Out: a
checkpoint, and what the judge writes: ledger and metrics. Read `loop.Training.run` first; rollouts are drawn in
`rollouts`, gradients computed in `passes`, a method's hooks called through `hooks`, and `self.run` is `services`. The
rules that the loop keeps are in docs/reference/training.md.
"""
