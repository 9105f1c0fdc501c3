"""The leaderboard as static pages.

In: entries and splits, whose texts are untrusted. Out: HTML files that need no server (`build`); `board_page` has the
rows of the board, `split_page` what a split's page says, `figures` their pictures.
"""
